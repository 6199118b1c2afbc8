/*
 * aead_libcrypto.c: seal and open runs with the system's libcrypto (OpenSSL 3), opened at run time: no header of it is
 * needed to build, and where it is absent nothing is lost but speed.
 *
 * Only the EVP calls below are used; their signatures have been stable since OpenSSL 1.1 and the ABI is named by the
 * library's soname. Tags are compared by EVP_DecryptFinal_ex, in constant time.
 */
#include "aead.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* EVP_CTRL_AEAD_*, from the EVP documentation. */
#define CTRL_GET_TAG 0x10
#define CTRL_SET_TAG 0x11

typedef struct evp_cipher evp_cipher;
typedef struct evp_ctx evp_ctx;
typedef struct engine engine;

struct bw_libcrypto {
    void *library;
    const evp_cipher *(*cipher[BW_AEADS])(void);
    evp_ctx *(*ctx_new)(void);
    void (*ctx_free)(evp_ctx *);
    int (*ctx_ctrl)(evp_ctx *, int, int, void *);
    int (*encrypt_init)(evp_ctx *, const evp_cipher *, engine *, const uint8_t *, const uint8_t *);
    int (*encrypt_update)(evp_ctx *, uint8_t *, int *, const uint8_t *, int);
    int (*encrypt_final)(evp_ctx *, uint8_t *, int *);
    int (*decrypt_init)(evp_ctx *, const evp_cipher *, engine *, const uint8_t *, const uint8_t *);
    int (*decrypt_update)(evp_ctx *, uint8_t *, int *, const uint8_t *, int);
    int (*decrypt_final)(evp_ctx *, uint8_t *, int *);
    const char *(*version)(int);
};

typedef struct {
    bw_cipher cipher;            /* first: a bw_evp is a bw_cipher */
    const bw_libcrypto *lib;
    evp_ctx *seal;               /* each made when it is first used: a key serves one direction only */
    evp_ctx *open;
    uint32_t aead;
    uint8_t key[32];
} bw_evp;

/* POSIX says that a data pointer from dlsym can hold a function; C has no cast for it, so copy the bits. */
static bool find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

bw_libcrypto *bw_libcrypto_open(const char *file)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return NULL;
    bw_libcrypto *lib = calloc(1, sizeof *lib);
    if (lib && find(library, "EVP_aes_128_gcm", &lib->cipher[0]) && find(library, "EVP_aes_256_gcm", &lib->cipher[1])
        && find(library, "EVP_chacha20_poly1305", &lib->cipher[2]) && find(library, "EVP_CIPHER_CTX_new", &lib->ctx_new)
        && find(library, "EVP_CIPHER_CTX_free", &lib->ctx_free) && find(library, "EVP_CIPHER_CTX_ctrl", &lib->ctx_ctrl)
        && find(library, "EVP_EncryptInit_ex", &lib->encrypt_init)
        && find(library, "EVP_EncryptUpdate", &lib->encrypt_update)
        && find(library, "EVP_EncryptFinal_ex", &lib->encrypt_final)
        && find(library, "EVP_DecryptInit_ex", &lib->decrypt_init)
        && find(library, "EVP_DecryptUpdate", &lib->decrypt_update)
        && find(library, "EVP_DecryptFinal_ex", &lib->decrypt_final)
        && find(library, "OpenSSL_version", &lib->version)) {
        lib->library = library;
        return lib;
    }
    free(lib);
    dlclose(library);
    return NULL;
}

void bw_libcrypto_close(bw_libcrypto *lib)
{
    if (!lib)
        return;
    dlclose(lib->library);
    free(lib);
}

const char *bw_libcrypto_version(const bw_libcrypto *lib)
{
    return lib->version(0);
}

static bool ready(bw_evp *evp, evp_ctx **ctx, int (*init)(evp_ctx *, const evp_cipher *, engine *, const uint8_t *,
                                                         const uint8_t *))
{
    if (*ctx)
        return true;
    const bw_libcrypto *lib = evp->lib;
    const evp_cipher *cipher = lib->cipher[evp->aead]();
    evp_ctx *made = lib->ctx_new();
    if (!made || !cipher || init(made, cipher, NULL, evp->key, NULL) != 1) {
        lib->ctx_free(made);
        return false;
    }
    *ctx = made;
    return true;
}

static int32_t seal(bw_cipher *cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                    uint32_t size, uint8_t *tag)
{
    bw_evp *evp = (bw_evp *)cipher;
    const bw_libcrypto *lib = evp->lib;
    if (!ready(evp, &evp->seal, lib->encrypt_init))
        return -ENOMEM;
    int n = 0;
    return lib->encrypt_init(evp->seal, NULL, NULL, NULL, nonce) == 1
            && (aad_size == 0 || lib->encrypt_update(evp->seal, NULL, &n, aad, (int)aad_size) == 1)
            && (size == 0 || lib->encrypt_update(evp->seal, body, &n, body, (int)size) == 1)
            && lib->encrypt_final(evp->seal, tag, &n) == 1 && lib->ctx_ctrl(evp->seal, CTRL_GET_TAG, BW_TAG, tag) == 1
        ? 0 : -EIO;
}

static int32_t open(bw_cipher *cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                    uint32_t size, const uint8_t *tag)
{
    bw_evp *evp = (bw_evp *)cipher;
    const bw_libcrypto *lib = evp->lib;
    if (!ready(evp, &evp->open, lib->decrypt_init))
        return -ENOMEM;
    int n = 0;
    uint8_t expected[BW_TAG], rest[BW_TAG];
    memcpy(expected, tag, sizeof expected);   /* the control call takes no const */
    return lib->decrypt_init(evp->open, NULL, NULL, NULL, nonce) == 1
        && (aad_size == 0 || lib->decrypt_update(evp->open, NULL, &n, aad, (int)aad_size) == 1)
        && (size == 0 || lib->decrypt_update(evp->open, body, &n, body, (int)size) == 1)
        && lib->ctx_ctrl(evp->open, CTRL_SET_TAG, BW_TAG, expected) == 1
        && lib->decrypt_final(evp->open, rest, &n) == 1;
}

static void dispose(bw_cipher *cipher)
{
    bw_evp *evp = (bw_evp *)cipher;
    evp->lib->ctx_free(evp->seal);   /* wipes the key; NULL is fine */
    evp->lib->ctx_free(evp->open);
    explicit_bzero(evp->key, sizeof evp->key);
    free(evp);
}

static const bw_cipher_calls CALLS = {seal, open, dispose};

bw_cipher *bw_libcrypto_cipher(const bw_libcrypto *lib, uint32_t aead, const uint8_t *key, uint32_t key_size)
{
    if (!lib || aead >= BW_AEADS || key_size != bw_key_size(aead))
        return NULL;
    bw_evp *evp = calloc(1, sizeof *evp);
    if (!evp)
        return NULL;
    evp->cipher.calls = &CALLS;
    evp->lib = lib;
    evp->aead = aead;
    memcpy(evp->key, key, key_size);
    return (bw_cipher *)evp;
}

/*
 * aead_ipsecmb.c: seal and open runs with Intel's multi-buffer library (libIPSec_MB), opened at run time. Its header is
 * needed to build this; where it is not found, or on another processor, all that is left is functions that say "absent".
 *
 * The direct calls are used, one packet each: for lone packets they are faster than the library's jobs, for runs of them as
 * fast, and they share nothing. So the manager, which only serves to find the functions that fit the processor, is not kept.
 *
 * What is relied on across versions: the soname (major version) and the offsets of the functions in IMB_MGR, to which its
 * header promises to add at the end only. What is not: the size of a struct; gcm_key_data grew between 1.3 and 1.4.
 *
 * Tags are compared here, in constant time.
 */
#include "aead.h"

#if defined(__x86_64__) && defined(__has_include) && !defined(BW_WITHOUT_IPSEC_MB)
#if __has_include(<intel-ipsec-mb.h>)
#define BW_IPSEC_MB
#endif
#endif

#ifdef BW_IPSEC_MB

#include <dlfcn.h>
#include <stdlib.h>

#define NO_COMPAT_IMB_API_053   /* none of its old names, which are as short as GCM */
#include <intel-ipsec-mb.h>

/* For a key as the library expands it; a line of the cache each, as its vector loads want it. */
#define KEY_ALIGNED 64
#define KEY_ROOM 1536
#define CONTEXT_ROOM 256

_Static_assert(sizeof(struct gcm_context_data) <= CONTEXT_ROOM
               && sizeof(struct chacha20_poly1305_context_data) <= CONTEXT_ROOM, "a context has room");
_Static_assert(sizeof(struct gcm_key_data) <= KEY_ROOM && KEY_ROOM % KEY_ALIGNED == 0, "an expanded key has room");

struct bw_ipsecmb {
    void *library;
    const char *version;
    aes_gcm_pre_t gcm_expand[2];         /* AES-128, AES-256 */
    aes_gcm_enc_dec_t gcm_seal[2];
    aes_gcm_enc_dec_t gcm_open[2];
    chacha_poly_init_t chacha_begin;
    chacha_poly_enc_dec_update_t chacha_seal;
    chacha_poly_enc_dec_update_t chacha_open;
    chacha_poly_finalize_t chacha_end;
};

typedef struct {
    bw_cipher cipher;                    /* first: a bw_imb is a bw_cipher */
    const bw_ipsecmb *lib;
    uint32_t aead;
    _Alignas(KEY_ALIGNED) union {
        struct gcm_key_data gcm;
        uint8_t chacha[32];
        uint8_t room[KEY_ROOM];
    } key;
    union {                              /* of the latest packet; here, so that it is wiped with the key */
        struct gcm_context_data gcm;
        struct chacha20_poly1305_context_data chacha;
        uint8_t room[CONTEXT_ROOM];
    } context;
    uint8_t tag[BW_TAG];
} bw_imb;

uint32_t bw_ipsecmb_major(void)
{
    return IMB_VERSION_NUM >> 16;
}

/* POSIX says that a data pointer from dlsym can hold a function; C has no cast for it, so copy the bits. */
static bool find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* The functions for this processor; false where it has none of the instructions, or the library failed its own tests. */
static bool choose(bw_ipsecmb *lib)
{
    IMB_MGR *(*new)(uint64_t) = NULL;
    void (*init)(IMB_MGR *, IMB_ARCH *) = NULL;
    int (*error)(IMB_MGR *) = NULL;
    void (*dispose)(IMB_MGR *) = NULL;
    if (!find(lib->library, "alloc_mb_mgr", &new) || !find(lib->library, "init_mb_mgr_auto", &init)
        || !find(lib->library, "imb_get_errno", &error) || !find(lib->library, "free_mb_mgr", &dispose))
        return false;
    IMB_MGR *manager = new(0);
    if (!manager)
        return false;
    init(manager, NULL);
    const bool good = error(manager) == 0;
    if (good) {
        lib->gcm_expand[0] = manager->gcm128_pre;
        lib->gcm_expand[1] = manager->gcm256_pre;
        lib->gcm_seal[0] = manager->gcm128_enc;
        lib->gcm_seal[1] = manager->gcm256_enc;
        lib->gcm_open[0] = manager->gcm128_dec;
        lib->gcm_open[1] = manager->gcm256_dec;
        lib->chacha_begin = manager->chacha20_poly1305_init;
        lib->chacha_seal = manager->chacha20_poly1305_enc_update;
        lib->chacha_open = manager->chacha20_poly1305_dec_update;
        lib->chacha_end = manager->chacha20_poly1305_finalize;
    }
    dispose(manager);
    return good && lib->gcm_expand[0] && lib->gcm_expand[1] && lib->gcm_seal[0] && lib->gcm_seal[1] && lib->gcm_open[0]
        && lib->gcm_open[1] && lib->chacha_begin && lib->chacha_seal && lib->chacha_open && lib->chacha_end;
}

bw_ipsecmb *bw_ipsecmb_open(const char *file)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return NULL;
    unsigned (*number)(void) = NULL;
    const char *(*text)(void) = NULL;
    bw_ipsecmb *lib = calloc(1, sizeof *lib);
    if (lib && find(library, "imb_get_version", &number) && find(library, "imb_get_version_str", &text)
        && number() >> 16 == bw_ipsecmb_major()) {
        lib->library = library;
        lib->version = text();
        if (choose(lib))
            return lib;
    }
    free(lib);
    dlclose(library);
    return NULL;
}

void bw_ipsecmb_close(bw_ipsecmb *lib)
{
    if (!lib)
        return;
    dlclose(lib->library);
    free(lib);
}

const char *bw_ipsecmb_version(const bw_ipsecmb *lib)
{
    return lib->version;
}

/* Without a branch that depends on where they differ. */
static bool same_tag(const uint8_t *one, const uint8_t *other)
{
    uint64_t a[2], b[2];
    _Static_assert(sizeof a == BW_TAG, "a tag is two words");
    memcpy(a, one, sizeof a);
    memcpy(b, other, sizeof b);
    return ((a[0] ^ b[0]) | (a[1] ^ b[1])) == 0;
}

static int32_t gcm_seal(bw_cipher *cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                        uint32_t size, uint8_t *tag)
{
    bw_imb *imb = (bw_imb *)cipher;
    imb->lib->gcm_seal[imb->aead](&imb->key.gcm, &imb->context.gcm, body, body, size, nonce, aad, aad_size, tag, BW_TAG);
    return 0;
}

static int32_t gcm_open(bw_cipher *cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                        uint32_t size, const uint8_t *tag)
{
    bw_imb *imb = (bw_imb *)cipher;
    imb->lib->gcm_open[imb->aead](&imb->key.gcm, &imb->context.gcm, body, body, size, nonce, aad, aad_size, imb->tag, BW_TAG);
    return same_tag(imb->tag, tag);
}

static int32_t chacha_seal(bw_cipher *cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                           uint32_t size, uint8_t *tag)
{
    bw_imb *imb = (bw_imb *)cipher;
    imb->lib->chacha_begin(imb->key.chacha, &imb->context.chacha, nonce, aad, aad_size);
    imb->lib->chacha_seal(imb->key.chacha, &imb->context.chacha, body, body, size);
    imb->lib->chacha_end(&imb->context.chacha, tag, BW_TAG);
    return 0;
}

static int32_t chacha_open(bw_cipher *cipher, const uint8_t *nonce, const uint8_t *aad, uint32_t aad_size, uint8_t *body,
                           uint32_t size, const uint8_t *tag)
{
    bw_imb *imb = (bw_imb *)cipher;
    imb->lib->chacha_begin(imb->key.chacha, &imb->context.chacha, nonce, aad, aad_size);
    imb->lib->chacha_open(imb->key.chacha, &imb->context.chacha, body, body, size);
    imb->lib->chacha_end(&imb->context.chacha, imb->tag, BW_TAG);
    return same_tag(imb->tag, tag);
}

static void dispose(bw_cipher *cipher)
{
    bw_imb *imb = (bw_imb *)cipher;
    explicit_bzero(imb, sizeof *imb);
    free(imb);
}

static const bw_cipher_calls GCM_CALLS = {gcm_seal, gcm_open, dispose};
static const bw_cipher_calls CHACHA_CALLS = {chacha_seal, chacha_open, dispose};

bw_cipher *bw_ipsecmb_cipher(const bw_ipsecmb *lib, uint32_t aead, const uint8_t *key, uint32_t key_size)
{
    if (!lib || aead >= BW_AEADS || key_size != bw_key_size(aead))
        return NULL;
    bw_imb *imb = aligned_alloc(_Alignof(bw_imb), sizeof *imb);
    if (!imb)
        return NULL;
    memset(imb, 0, sizeof *imb);
    imb->lib = lib;
    imb->aead = aead;
    if (aead == 2) {
        imb->cipher.calls = &CHACHA_CALLS;
        memcpy(imb->key.chacha, key, sizeof imb->key.chacha);
    } else {
        imb->cipher.calls = &GCM_CALLS;
        lib->gcm_expand[aead](key, &imb->key.gcm);
    }
    return &imb->cipher;
}

#else

uint32_t bw_ipsecmb_major(void)
{
    return 0;
}

bw_ipsecmb *bw_ipsecmb_open(const char *file)
{
    (void)file;
    return NULL;
}

void bw_ipsecmb_close(bw_ipsecmb *lib)
{
    (void)lib;
}

const char *bw_ipsecmb_version(const bw_ipsecmb *lib)
{
    (void)lib;
    return "";
}

bw_cipher *bw_ipsecmb_cipher(const bw_ipsecmb *lib, uint32_t aead, const uint8_t *key, uint32_t key_size)
{
    (void)lib;
    (void)aead;
    (void)key;
    (void)key_size;
    return NULL;
}

#endif

/*
 * nonce_log.c: a libcrypto for burstwire that writes down every key and nonce that it is given to seal with, before it
 * hands them to the real one. It can also fail now and then.
 *
 *     BURSTWIRE_LIBCRYPTO=nonce_log.so  BURSTWIRE_AEAD_BACKEND=libcrypto  NONCE_LOG=file  python ...
 *
 * The file is mapped and shared by all processes and threads: a count (u64), the capacity (u64), 48 bytes unused, and then
 * rows of 64 bytes: key 32 (zeros behind a shorter one), nonce 12, thread id u32, 1 if the seal was made to fail u32,
 * zeros. A row beyond the capacity is counted and not written.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct {
    uint8_t key[32], nonce[12];
    uint32_t thread, failed;
    uint8_t rest[12];
} row;

typedef struct {
    _Atomic uint64_t count;
    uint64_t capacity;
    uint8_t rest[48];
    row rows[];
} book;

_Static_assert(sizeof(row) == 64 && sizeof(book) == 64, "as Python reads them");

typedef struct {
    void *real;
    uint32_t key_size;
    uint8_t key[32], nonce[12];
} context;

static struct {
    void *(*cipher[3])(void);
    void *(*ctx_new)(void);
    void (*ctx_free)(void *);
    int (*ctrl)(void *, int, int, void *);
    int (*seal_init)(void *, const void *, void *, const uint8_t *, const uint8_t *);
    int (*seal_update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*seal_final)(void *, uint8_t *, int *);
    int (*open_init)(void *, const void *, void *, const uint8_t *, const uint8_t *);
    int (*open_update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*open_final)(void *, uint8_t *, int *);
    const char *(*version)(int);
} real;

static book *log_book;
static _Thread_local uint64_t fail_every, seals;

static void find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    if (!symbol)
        abort();
    memcpy(function, &symbol, sizeof symbol);
}

__attribute__((constructor)) static void begin(void)
{
    void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        abort();
    find(library, "EVP_aes_128_gcm", &real.cipher[0]);
    find(library, "EVP_aes_256_gcm", &real.cipher[1]);
    find(library, "EVP_chacha20_poly1305", &real.cipher[2]);
    find(library, "EVP_CIPHER_CTX_new", &real.ctx_new);
    find(library, "EVP_CIPHER_CTX_free", &real.ctx_free);
    find(library, "EVP_CIPHER_CTX_ctrl", &real.ctrl);
    find(library, "EVP_EncryptInit_ex", &real.seal_init);
    find(library, "EVP_EncryptUpdate", &real.seal_update);
    find(library, "EVP_EncryptFinal_ex", &real.seal_final);
    find(library, "EVP_DecryptInit_ex", &real.open_init);
    find(library, "EVP_DecryptUpdate", &real.open_update);
    find(library, "EVP_DecryptFinal_ex", &real.open_final);
    find(library, "OpenSSL_version", &real.version);
    const char *path = getenv("NONCE_LOG");
    struct stat status;
    const int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0 || fstat(file, &status) < 0)
        abort();
    void *memory = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        abort();
    close(file);
    log_book = memory;
}

static void write_row(const uint8_t *key, uint32_t key_size, const uint8_t *nonce, uint32_t failed)
{
    const uint64_t index = atomic_fetch_add(&log_book->count, 1);
    if (index >= log_book->capacity)
        return;
    row *to = &log_book->rows[index];
    memcpy(to->key, key, key_size);
    memcpy(to->nonce, nonce, sizeof to->nonce);
    to->thread = (uint32_t)gettid();
    to->failed = failed;
}

/* For what Python seals by way of cryptography. */
EXPORT void nonce_note(const uint8_t *key, uint32_t key_size, const uint8_t *nonce)
{
    write_row(key, key_size, nonce, 0);
}

/* From now on every n-th seal of this thread fails at its end. */
EXPORT void nonce_fail(uint64_t every)
{
    fail_every = every;
}

EXPORT void *EVP_aes_128_gcm(void) { return real.cipher[0](); }
EXPORT void *EVP_aes_256_gcm(void) { return real.cipher[1](); }
EXPORT void *EVP_chacha20_poly1305(void) { return real.cipher[2](); }
EXPORT const char *OpenSSL_version(int what) { return real.version(what); }

EXPORT void *EVP_CIPHER_CTX_new(void)
{
    context *made = calloc(1, sizeof *made);
    if (made && !(made->real = real.ctx_new())) {
        free(made);
        return NULL;
    }
    return made;
}

EXPORT void EVP_CIPHER_CTX_free(context *ctx)
{
    if (!ctx)
        return;
    real.ctx_free(ctx->real);
    free(ctx);
}

EXPORT int EVP_CIPHER_CTX_ctrl(context *ctx, int what, int size, void *data)
{
    return real.ctrl(ctx->real, what, size, data);
}

EXPORT int EVP_EncryptInit_ex(context *ctx, const void *cipher, void *engine, const uint8_t *key, const uint8_t *nonce)
{
    if (key) {
        ctx->key_size = cipher == real.cipher[0]() ? 16 : 32;
        memcpy(ctx->key, key, ctx->key_size);
    }
    if (nonce)
        memcpy(ctx->nonce, nonce, sizeof ctx->nonce);
    return real.seal_init(ctx->real, cipher, engine, key, nonce);
}

EXPORT int EVP_EncryptUpdate(context *ctx, uint8_t *out, int *n, const uint8_t *in, int size)
{
    return real.seal_update(ctx->real, out, n, in, size);
}

EXPORT int EVP_EncryptFinal_ex(context *ctx, uint8_t *out, int *n)
{
    const uint32_t failed = fail_every && ++seals % fail_every == 0;
    write_row(ctx->key, ctx->key_size, ctx->nonce, failed);
    return failed ? 0 : real.seal_final(ctx->real, out, n);
}

EXPORT int EVP_DecryptInit_ex(context *ctx, const void *cipher, void *engine, const uint8_t *key, const uint8_t *nonce)
{
    return real.open_init(ctx->real, cipher, engine, key, nonce);
}

EXPORT int EVP_DecryptUpdate(context *ctx, uint8_t *out, int *n, const uint8_t *in, int size)
{
    return real.open_update(ctx->real, out, n, in, size);
}

EXPORT int EVP_DecryptFinal_ex(context *ctx, uint8_t *out, int *n)
{
    return real.open_final(ctx->real, out, n);
}

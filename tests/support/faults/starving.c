/*
 * starving.c: stands between the C core and the C library (LD_PRELOAD): the n-th allocation that the extension itself makes
 * fails. Nobody else's allocations are counted or touched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

extern void *__libc_calloc(size_t, size_t);
extern void *__libc_malloc(size_t);
extern void *__libc_memalign(size_t, size_t);

static int seen, countdown, failed;

void starve(int nth) { countdown = nth; }
int allocations(void) { return seen; }
int starved(void) { return failed; }

/* Whether the caller is the extension, and its turn has come. */
static int refused(const void *caller)
{
    static __thread int inside;   /* dladdr may allocate */
    if (inside)
        return 0;
    inside = 1;
    Dl_info info;
    const int ours = dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "_burstwire");
    inside = 0;
    if (!ours)
        return 0;
    seen++;
    if (countdown == 0 || --countdown != 0)
        return 0;
    failed++;
    errno = ENOMEM;
    return 1;
}

void *calloc(size_t n, size_t size) { return refused(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size); }

void *malloc(size_t size) { return refused(__builtin_return_address(0)) ? NULL : __libc_malloc(size); }

void *aligned_alloc(size_t alignment, size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    if (refused(__builtin_return_address(0)))
        return MAP_FAILED;
    if (!real)
        real = dlsym(RTLD_NEXT, "mmap");
    return real(address, length, protection, flags, fd, offset);
}

/*
 * replay.c: a main for machines without libFuzzer. Runs a harness on files, then for some seconds on mutations of them.
 *
 *   harness [-seconds=N] [-seed=N] [-save=FILE] FILE...
 *
 * The input that brings a harness down is saved before the process dies.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define LONGEST 8192u
#define FILES 4096u

typedef struct {
    uint8_t *bytes;
    size_t size;
} file;

static uint8_t current[LONGEST];
static size_t current_size;
static const char *save = "crash";
static uint64_t state = 1;

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
    return "abort_on_error=1:detect_leaks=0:allocator_may_return_null=1";
}

const char *__ubsan_default_options(void)
{
    return "abort_on_error=1:halt_on_error=1:print_stacktrace=1";
}

static void dying(int number)
{
    const int fd = open(save, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd >= 0) {
        const ssize_t written = write(fd, current, current_size);
        (void)written;
        (void)close(fd);
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static uint64_t chance(uint64_t below)   /* xorshift64*: no quality needed, only that a seed repeats it */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * UINT64_C(2685821657736338717) >> 16) % below;
}

static void run(void)
{
    uint8_t *exact = malloc(current_size ? current_size : 1);   /* so that reading past the input is seen */
    if (!exact)
        abort();
    memcpy(exact, current, current_size);
    (void)LLVMFuzzerTestOneInput(exact, current_size);
    free(exact);
}

static void mutate(const file *files, size_t count)
{
    static const uint8_t borders[] = {0, 1, 2, 15, 16, 28, 29, 41, 42, 43, 63, 64, 65, 127, 128, 254, 255};
    const file *base = &files[chance(count)];
    current_size = base->size;
    memcpy(current, base->bytes, base->size);
    for (uint64_t n = 1 + chance(8); n > 0; n--) {
        const size_t at = current_size ? chance(current_size) : 0;
        switch (chance(6)) {
        case 0:
            if (current_size)
                current[at] ^= (uint8_t)(1u << chance(8));
            break;
        case 1:
            if (current_size)
                current[at] = borders[chance(sizeof borders)];
            break;
        case 2:
            if (current_size)
                current[at] = (uint8_t)chance(256);
            break;
        case 3:
            current_size = at;
            break;
        case 4:
            if (current_size < LONGEST) {
                memmove(current + at + 1, current + at, current_size - at);
                current[at] = (uint8_t)chance(256);
                current_size++;
            }
            break;
        default: {   /* a piece of another file */
            const file *other = &files[chance(count)];
            if (!other->size)
                break;
            const size_t from = chance(other->size);
            size_t length = 1 + chance(other->size - from);
            if (length > LONGEST - at)
                length = LONGEST - at;
            memcpy(current + at, other->bytes + from, length);
            if (at + length > current_size)
                current_size = at + length;
        }
        }
    }
}

int main(int argc, char **argv)
{
    static file files[FILES];
    size_t count = 0;
    double seconds = 0;
    uint64_t executions = 0;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-seconds=", 9) == 0) {
            seconds = strtod(argv[i] + 9, NULL);
        } else if (strncmp(argv[i], "-seed=", 6) == 0) {
            state = strtoull(argv[i] + 6, NULL, 10) | 1;
        } else if (strncmp(argv[i], "-save=", 6) == 0) {
            save = argv[i] + 6;
        } else if (count < FILES) {
            FILE *f = fopen(argv[i], "rb");
            if (!f) {
                perror(argv[i]);
                return 2;
            }
            files[count].bytes = malloc(LONGEST);
            if (!files[count].bytes)
                abort();
            files[count].size = fread(files[count].bytes, 1, LONGEST, f);
            (void)fclose(f);
            count++;
        }
    }
    (void)signal(SIGABRT, dying);
    for (size_t i = 0; i < count; i++) {
        current_size = files[i].size;
        memcpy(current, files[i].bytes, current_size);
        run();
        executions++;
    }
    struct timespec start, now;
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    now = start;
    while (count && (double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9 < seconds) {
        for (unsigned int i = 0; i < 64; i++) {
            mutate(files, count);
            run();
            executions++;
        }
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
    }
    for (size_t i = 0; i < count; i++)
        free(files[i].bytes);
    printf("%zu files, %llu executions\n", count, (unsigned long long)executions);
    return 0;
}

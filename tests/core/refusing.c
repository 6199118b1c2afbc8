/*
 * refusing.c: stands between the program and the C library (LD_PRELOAD) and lets the kernel seem to refuse, on demand.
 *
 * refuse(call, which, error, skip, times): messages of `call` (0 send, 1 receive) that match `which` fail with `error`, after
 * `skip` matching ones passed, `times` times (-1: always). As in the kernel, an error behind the first message of a
 * batch ends the batch early and shows itself in the next call.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

enum { ANY = 0, SEGMENTED = 1, MARKED = 2, SOURCED = 3, CALLS = 4, CUT_CONTROL = 5 };
static struct { int call, which, error, skip, times; } rules[8];
static int used;
int refused_calls;

void refuse(int call, int which, int error, int skip, int times)
{
    rules[used].call = call;
    rules[used].which = which;
    rules[used].error = error;
    rules[used].skip = skip;
    rules[used].times = times;
    used++;
}

void relent(void) { used = 0; }

static int has(const struct msghdr *m, int level, int type)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR((struct msghdr *)m, c))
        if (c->cmsg_level == level && c->cmsg_type == type)
            return 1;
    return 0;
}

static int verdict(int call, const struct msghdr *m)
{
    for (int i = 0; i < used; i++) {
        const int which = rules[i].which;
        if (rules[i].call != call || rules[i].times == 0 || which == CALLS || which == CUT_CONTROL)
            continue;
        if (which == SEGMENTED && !has(m, IPPROTO_UDP, 103))
            continue;
        if (which == MARKED && !has(m, IPPROTO_IP, IP_TOS) && !has(m, IPPROTO_IPV6, IPV6_TCLASS))
            continue;
        if (which == SOURCED && !has(m, IPPROTO_IP, IP_PKTINFO) && !has(m, IPPROTO_IPV6, IPV6_PKTINFO))
            continue;
        if (rules[i].skip > 0) {
            rules[i].skip--;
            continue;
        }
        if (rules[i].times > 0)
            rules[i].times--;
        refused_calls++;
        return rules[i].error;
    }
    return 0;
}

/* Whole calls of the "mmsg" kind, for systems that do not have them. */
static int missing(int call)
{
    for (int i = 0; i < used; i++)
        if (rules[i].call == call && rules[i].which == CALLS)
            return rules[i].error;
    return 0;
}

static void cut(struct msghdr *m)
{
    for (int i = 0; i < used; i++)
        if (rules[i].which == CUT_CONTROL && rules[i].times != 0) {
            if (rules[i].times > 0)
                rules[i].times--;
            m->msg_controllen = 0;
            m->msg_flags |= MSG_CTRUNC;
        }
}

int sendmmsg(int fd, struct mmsghdr *v, unsigned int n, int flags)
{
    static int (*real)(int, struct mmsghdr *, unsigned int, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "sendmmsg");
    int error = missing(0);
    unsigned int ok = 0;
    while (!error && ok < n) {
        error = verdict(0, &v[ok].msg_hdr);
        if (!error)
            ok++;
    }
    if (ok == 0 && error) {
        errno = error;
        return -1;
    }
    if (error && ok > 0) {   /* it has to be found again by the next call */
        for (int i = 0; i < used; i++)
            if (rules[i].error == error && rules[i].times >= 0 && rules[i].which != CALLS) {
                rules[i].times++;
                break;
            }
    }
    return real(fd, v, ok, flags);
}

int recvmmsg(int fd, struct mmsghdr *v, unsigned int n, int flags, struct timespec *t)
{
    static int (*real)(int, struct mmsghdr *, unsigned int, int, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "recvmmsg");
    int error = missing(1);
    if (!error)
        error = verdict(1, &v[0].msg_hdr);
    if (error) {
        errno = error;
        return -1;
    }
    const int got = real(fd, v, n, flags, t);
    for (int i = 0; i < got; i++)
        cut(&v[i].msg_hdr);
    return got;
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "sendmsg");
    const int error = verdict(0, m);
    if (error) {
        errno = error;
        return -1;
    }
    return real(fd, m, flags);
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    static ssize_t (*real)(int, struct msghdr *, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "recvmsg");
    const int error = verdict(1, m);
    if (error) {
        errno = error;
        return -1;
    }
    const ssize_t got = real(fd, m, flags);
    if (got >= 0)
        cut(m);
    return got;
}

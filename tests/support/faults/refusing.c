/*
 * refusing.c: stands between the program and the C library (LD_PRELOAD) and lets the kernel seem to refuse: on demand, by rules,
 * or at random, by a seed.
 *
 * refuse_to(call, which, error, skip, times, to): messages of `call` (0 send, 1 receive) that match `which`, and go to the IPv4
 * address `to` (host byte order; 0: any), fail with `error`, after `skip` matching ones passed, `times` times (-1: always).
 * As in the kernel, an error behind the first message of a batch ends the batch early and shows itself in the next call.
 *
 * riot(seed, permille): each message meets an error of the menu below with that chance, batches end early without one, and
 * now and then there is a spell in which the same error hits several messages in a row. riot(_, 0) ends it.
 *
 * refused_calls counts all, refused_with(error) those with one error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { SEND = 0, RECEIVE = 1 };
enum { ANY = 0, SEGMENTED = 1, MARKED = 2, SOURCED = 3, CALLS = 4, CUT_CONTROL = 5, SHORT = 6 };

static struct { int call, which, error, skip, times; uint32_t to; } rules[16];
static int used;
int refused_calls;
static int tally[256];

static uint64_t state;
static unsigned int chance;                       /* in a thousand */
static struct { int which, error, left; } spell;  /* what the next messages meet */
static int pending;                               /* what the next send begins with */

static const struct { int which, error; } menu[] = {
    {ANY, EAGAIN}, {ANY, ENOBUFS}, {ANY, ENOMEM}, {ANY, EMSGSIZE}, {ANY, ENETUNREACH}, {ANY, EHOSTUNREACH}, {ANY, ECONNREFUSED},
    {ANY, EPERM}, {ANY, EINTR}, {SEGMENTED, EIO}, {SEGMENTED, EINVAL}, {MARKED, EINVAL}, {SHORT, 0},
};
static const int receive_menu[] = {EAGAIN, EINTR, ENOMEM, ECONNREFUSED, EHOSTUNREACH};

#define LENGTH(array) (sizeof array / sizeof *array)
#define SPELLS 16u       /* one error in so many begins a spell */
#define LONGEST_SPELL 4u /* messages: each costs a sender that is refused everything one more doubling of its timer */

void refuse_to(int call, int which, int error, int skip, int times, uint32_t to)
{
    if (used < (int)LENGTH(rules)) {
        rules[used].call = call;
        rules[used].which = which;
        rules[used].error = error;
        rules[used].skip = skip;
        rules[used].times = times;
        rules[used].to = to;
        used++;
    }
}

void refuse(int call, int which, int error, int skip, int times) { refuse_to(call, which, error, skip, times, 0); }

void riot(uint64_t seed, unsigned int permille)
{
    state = seed * 0x9e3779b97f4a7c15u + 1;
    chance = permille;
    spell.left = pending = 0;
}

void relent(void)
{
    used = 0;
    riot(0, 0);
}

int refused_with(int error) { return tally[error & 255]; }

static uint32_t draw(uint32_t below)   /* xorshift64* */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1du) >> 33) % below;
}

static int has(const struct msghdr *m, int level, int type)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR((struct msghdr *)m, c))
        if (c->cmsg_level == level && c->cmsg_type == type)
            return 1;
    return 0;
}

static int matches(int which, const struct msghdr *m)
{
    if (which == SEGMENTED)
        return has(m, IPPROTO_UDP, 103);
    if (which == MARKED)
        return has(m, IPPROTO_IP, IP_TOS) || has(m, IPPROTO_IPV6, IPV6_TCLASS);
    if (which == SOURCED)
        return has(m, IPPROTO_IP, IP_PKTINFO) || has(m, IPPROTO_IPV6, IPV6_PKTINFO);
    return which == ANY;
}

static int goes_to(const struct msghdr *m, uint32_t to)
{
    const struct sockaddr_in *name = m->msg_name;
    return to == 0 || (name && name->sin_family == AF_INET && ntohl(name->sin_addr.s_addr) == to);
}

static int noted(int error)
{
    refused_calls++;
    tally[error & 255]++;
    return error;
}

/* What chance has for this message: an error, 0, or -1: the batch ends here without one. */
static int mishap(int call, const struct msghdr *m)
{
    if (call == RECEIVE)
        return draw(1000) < chance ? noted(receive_menu[draw(LENGTH(receive_menu))]) : 0;
    if (spell.left > 0) {
        spell.left--;
        return matches(spell.which, m) ? noted(spell.error) : 0;
    }
    if (draw(1000) >= chance)
        return 0;
    const uint32_t what = draw(LENGTH(menu));
    if (menu[what].which == SHORT)
        return -1;
    if (!matches(menu[what].which, m))
        return 0;
    if (draw(SPELLS) == 0) {
        spell.which = menu[what].which;
        spell.error = menu[what].error;
        spell.left = (int)draw(LONGEST_SPELL);
    }
    return noted(menu[what].error);
}

static int verdict(int call, const struct msghdr *m)
{
    if (call == SEND && pending) {
        const int error = pending;
        pending = 0;
        return error;
    }
    for (int i = 0; i < used; i++) {
        const int which = rules[i].which;
        if (rules[i].call != call || rules[i].times == 0 || !matches(which, m) || !goes_to(m, rules[i].to))
            continue;
        if (rules[i].skip > 0) {
            rules[i].skip--;
            continue;
        }
        if (rules[i].times > 0)
            rules[i].times--;
        return noted(rules[i].error);
    }
    return chance ? mishap(call, m) : 0;
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

static int failed(int error)
{
    errno = error;
    return -1;
}

int sendmmsg(int fd, struct mmsghdr *v, unsigned int n, int flags)
{
    static int (*real)(int, struct mmsghdr *, unsigned int, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "sendmmsg");
    int error = missing(SEND);
    unsigned int ok = 0;
    while (!error && ok < n) {
        error = verdict(SEND, &v[ok].msg_hdr);
        if (!error)
            ok++;
    }
    if (ok == 0 && error)
        return failed(error > 0 ? error : EINTR);
    const int sent = real(fd, v, ok, flags);
    if (error > 0)   /* behind others that went well: the next call has it, unless the kernel had one of its own */
        pending = error;
    return sent;
}

int recvmmsg(int fd, struct mmsghdr *v, unsigned int n, int flags, struct timespec *t)
{
    static int (*real)(int, struct mmsghdr *, unsigned int, int, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "recvmmsg");
    int error = missing(RECEIVE);
    if (!error)
        error = verdict(RECEIVE, &v[0].msg_hdr);
    if (error)
        return failed(error);
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
    const int error = verdict(SEND, m);
    if (error)
        return failed(error > 0 ? error : EINTR);
    return real(fd, m, flags);
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    static ssize_t (*real)(int, struct msghdr *, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "recvmsg");
    const int error = verdict(RECEIVE, m);
    if (error)
        return failed(error);
    const ssize_t got = real(fd, m, flags);
    if (got >= 0)
        cut(m);
    return got;
}

/*
 * mmsg.c: many messages a system call (Linux). A failure behind the first message is not reported here but by the next call,
 * which starts with that message.
 */
#include "internal.h"

#ifdef __linux__

#ifndef __GLIBC__
#include <sys/syscall.h>
#include <unistd.h>
#endif

int bw_mmsg_send(int fd, bw_message *messages, unsigned int n)
{
#ifdef __GLIBC__
    const int sent = sendmmsg(fd, messages, n, MSG_DONTWAIT | MSG_NOSIGNAL);
#else
    /* musl's sendmmsg is a loop over sendmsg on 64-bit machines, because of the padding in its msghdr. Ours is zeroed, so the
     * kernel can read it as it is. */
    const int sent = (int)syscall(SYS_sendmmsg, fd, messages, n, MSG_DONTWAIT | MSG_NOSIGNAL);
#endif
    return sent < 0 ? -errno : sent;
}

int bw_mmsg_recv(int fd, bw_message *messages, unsigned int n)
{
#ifdef __GLIBC__
    const int received = recvmmsg(fd, messages, n, MSG_DONTWAIT, NULL);
#else
    const int received = (int)syscall(SYS_recvmmsg, fd, messages, n, MSG_DONTWAIT, NULL);
#endif
    return received < 0 ? -errno : received;
}

#else

typedef int bw_nothing_here;   /* ISO C forbids an empty file */

#endif

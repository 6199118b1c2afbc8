/*
 * portable.c: one datagram a system call, on every POSIX system, and on Linux where sendmmsg and recvmmsg do not exist.
 */
#include "internal.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

int bw_portable_send(int fd, bw_message *messages, unsigned int n)
{
    for (unsigned int i = 0; i < n; i++) {
        const ssize_t sent = sendmsg(fd, &messages[i].msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            return i > 0 ? (int)i : -errno;
        messages[i].msg_len = (unsigned int)sent;
    }
    return (int)n;
}

int bw_portable_recv(int fd, bw_message *messages, unsigned int n)
{
    for (unsigned int i = 0; i < n; i++) {
        const ssize_t received = recvmsg(fd, &messages[i].msg_hdr, MSG_DONTWAIT);
        if (received < 0)
            return i > 0 ? (int)i : -errno;
        messages[i].msg_len = (unsigned int)received;
    }
    return (int)n;
}

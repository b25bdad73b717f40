// What the machine itself takes: starting a process with vfork and exec, giving it an event,
// reading its reply and reaping it; an HTTP exchange on a kept loopback connection with a
// server that does nothing else; and a native zygote's fork, until its worker has answered an event.
// Prints microseconds, one line a round.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static double start(char *program) {
    int in[2], out[2], status;
    char reply[256], *const arguments[] = {program, "once", 0}, *const environment[] = {0};
    double begun = now();
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) exit(1);
    pid_t pid = vfork();
    if (!pid) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execve(program, arguments, environment);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    if (write(in[1], "{\"n\":1}", 7) != 7) exit(1);
    close(in[1]);
    while (read(out[0], reply, sizeof reply) > 0) {}
    waitpid(pid, &status, 0);
    double took = now() - begun;
    close(out[0]);
    if (status) exit(1);
    return took;
}

// A zygote on hob's wire, which has to begin without descriptors of others; its socket.
static int start_zygote(char *program) {
    int talk[2];
    char hello[64], *const environment[] = {"HOB_ZYGOTE=1", "HOB_WIRE=5", 0};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, talk)) exit(1);
    if (!fork()) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(talk[1], 0);
        close_range(3, ~0U, 0);
        execle(program, program, (char *)0, environment);
        _exit(127);
    }
    close(talk[1]);
    for (size_t have = 0; have < sizeof wire_hello;) {
        ssize_t n = read(talk[0], hello + have, sizeof hello - have);
        if (n <= 0) exit(1);
        have += n;
        if (have >= sizeof wire_hello && memcmp(hello, wire_hello, sizeof wire_hello)) {
            fprintf(stderr, "floor: %s does not fork\n", program);
            exit(1);
        }
    }
    return talk[0];
}

static void put(int fd, const void *bytes, ssize_t length) {
    if (write(fd, bytes, length) != length) exit(1);
}

static double fork_once(int zygote) {
    // Fork, with one variable for the environment; and an invocation with texts as long as hob's are.
    static const char fork[] = "\x1e\0\0\0\1\1\x1b" "AWS_LAMBDA_LOG_STREAM_NAME=";
    char event[512], reply[512];
    int talk[2], said[2], events[2], status;
    double begun = now();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk)) exit(1);
    if (pipe2(said, O_CLOEXEC) || pipe2(events, O_CLOEXEC)) exit(1);
    union {
        char bytes[CMSG_SPACE(3 * sizeof(int))];
        struct cmsghdr head;
    } beside = {.head = {CMSG_LEN(3 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&beside.head), (int[]){talk[1], said[1], events[0]}, 3 * sizeof(int));
    struct iovec part = {(void *)fork, sizeof fork - 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &beside, .msg_controllen = sizeof beside};
    if (sendmsg(zygote, &message, 0) != sizeof fork - 1) exit(1);
    close(talk[1]), close(said[1]), close(events[0]);
    int length = 4 + sprintf(event + 4, "%c%c%c%c%036d%c%056d%c%074d%c%c{\"n\":1}", 0, 1, 0, 36, 0, 56, 0,
                             74, 0, 0, 0);
    memcpy(event, &(uint32_t){length - 4}, 4);
    put(events[1], event, length);
    // Hello and ready, perhaps what memory it has, and the reply: that begins as the event does.
    for (ssize_t have = 0; !memmem(reply, have, "{\"n\":1", 6);) {
        ssize_t n = read(talk[0], reply + have, sizeof reply - have);
        if (n <= 0) exit(1);
        have += n;
    }
    double took = now() - begun;
    if (read(zygote, reply, sizeof reply) <= 0) exit(1);
    close(talk[0]), close(said[0]), close(events[1]);
    // The worker is our own child, as it would be hob's.
    if (wait(&status) < 0) exit(1);
    return took;
}

static int listen_on_loopback(struct sockaddr_in *address) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t length = sizeof *address;
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (void *)address, length) || listen(listener, 1)) exit(1);
    getsockname(listener, (void *)address, &length);
    return listener;
}

int main(int argc, char **argv) {
    int rounds = atoi(argv[2]);
    // It goes with who asked for it, and does not wait for ever.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(120);
    if (argc > 3 && *argv[3] == 'f') {
        for (int n = 0, zygote = start_zygote(argv[1]); n < rounds; n++) printf("%.1f\n", fork_once(zygote));
        return 0;
    }
    if (argc > 3) {
        struct sockaddr_in address;
        int listener = listen_on_loopback(&address), one = 1;
        char request[] = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"n\":1}";
        char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"n\":1}", buffer[4096];
        if (!fork()) {
            int served = accept(listener, 0, 0);
            setsockopt(served, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            while (read(served, buffer, sizeof buffer) > 0)
                if (write(served, reply, sizeof reply - 1) < 0) break;
            _exit(0);
        }
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(client, (void *)&address, sizeof address)) exit(1);
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        for (int n = 0; n < rounds; n++) {
            double begun = now();
            if (write(client, request, sizeof request - 1) < 0) exit(1);
            if (read(client, buffer, sizeof buffer) <= 0) exit(1);
            printf("%.1f\n", now() - begun);
        }
        close(client);
        wait(0);
        return 0;
    }
    for (int n = 0; n < rounds; n++) printf("%.1f\n", start(argv[1]));
}

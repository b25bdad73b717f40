// What the machine itself takes: starting a process with vfork and exec, giving it an event,
// reading its reply and reaping it; and an HTTP exchange on a kept loopback connection with a
// server that does nothing else. Prints microseconds, one line a round.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

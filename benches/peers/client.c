// Times exchanges: client PORT PATH COUNT PAUSE_MS [keep]. Prints the microseconds of each, on a new
// connection or on one that is kept; ends with what is wrong at the first bad reply.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static const char event[] = "{\"n\":1,\"text\":\"hello\"}";
static char reply[1 << 16];

static void fail(const char *what) {
    fprintf(stderr, "%s: %.200s\n", what, reply);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

// Leaves the processor to others, but does not let it halt: to wake it would be measured as well.
static void pause_ms(double ms) {
    for (double end = now() + ms * 1e3; now() < end;) sched_yield();
}

static int dial(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval limit = {.tv_sec = 20};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    return fd;
}

// True if all of the reply is there, as far as that can be told before its end.
static int is_whole(size_t have) {
    char *body = strstr(reply, "\r\n\r\n");
    if (!body) return 0;
    body += 4;
    for (char *line = strstr(reply, "\r\n"); line && line + 4 < body; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, "content-length:", 15)) return reply + have - body >= atol(line + 15);
        if (!strncasecmp(line, "transfer-encoding:", 18)) return !strcmp(reply + have - 5, "0\r\n\r\n");
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    int port = atoi(argv[1]), count = atoi(argv[3]), keep = argc > 5, fd = -1;
    double pause = atof(argv[4]);
    char request[1024];
    int length = snprintf(request, sizeof request,
                          "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\n%s\r\n%s",
                          argv[2], sizeof event - 1, keep ? "" : "Connection: close\r\n", event);
    for (int n = 0; n < count; n++) {
        if (n) pause_ms(pause);
        double begin = now();
        if (fd < 0) fd = dial(port);
        if (write(fd, request, length) != length) fail("write");
        size_t have = 0;
        for (ssize_t more = 1; more > 0 && !is_whole(have);) {
            more = read(fd, reply + have, sizeof reply - 1 - have);
            if (more < 0) fail("read");
            have += more;
            reply[have] = 0;
        }
        double took = now() - begin;
        if (!strstr(reply, " 200 ") || !strstr(reply, "\"added\"")) fail("reply");
        printf("%.1f\n", took);
        if (!keep) close(fd), fd = -1;
    }
    return 0;
}

// What a host's two ways to a worker take at least on this machine: takes invocations on kept HTTP
// connections to a bounded number of workers and their answers back, and does nothing else. It knows
// no functions, deadlines, limits, logs or errors, and trusts everybody. The path of a request says
// which workers it is for: /n those on hob's wire, /p those of the Lambda Runtime API, which connect
// like anybody; /0 is answered at once. Its arguments are how many of each there are, and their
// programs; it prints its port.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { connections_max = 1024, event_max = 512 };

// Whom a descriptor belongs to.
enum kind { caller, native, provided };
static enum kind kinds[connections_max];
// Where a worker on the wire reads its events, and whom a worker works for.
static int events_of[connections_max], caller_of[connections_max];

// By the kind of worker: those that wait for an event, and the events that wait for a worker.
struct waiting {
    int idle[connections_max], idle_count;
    struct event {
        int from;
        size_t length;
        char bytes[event_max];
    } events[connections_max];
    unsigned first, last;
};
static struct waiting waiting[3];

static int watcher, listener;

static void check(int fails) {
    if (fails) {
        perror("relay");
        exit(1);
    }
}

static void watch(int fd, enum kind kind) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    check(fd >= connections_max || epoll_ctl(watcher, EPOLL_CTL_ADD, fd, &event));
    kinds[fd] = kind;
}

static void send_all(int fd, const char *bytes, size_t length) {
    check(write(fd, bytes, length) != (ssize_t)length);
}

static void answer(int fd, const char *body, size_t length) {
    char reply[event_max + 256];
    int head = sprintf(reply, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Amzn-RequestId: "
                              "%036d\r\nContent-Length: %zu\r\n\r\n", 0, length);
    memcpy(reply + head, body, length);
    // Who does not wait for it any more is gone.
    if (write(fd, reply, head + length) < 0) return;
}

// Gives an event to a worker: with texts as long as hob's are.
static void give(int worker, const struct event *event) {
    char out[event_max + 512];
    caller_of[worker] = event->from;
    if (kinds[worker] == provided) {
        int head = sprintf(out, "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: %036d\r\n"
                                "Lambda-Runtime-Deadline-Ms: %013d\r\nLambda-Runtime-Invoked-Function-Arn: "
                                "%056d\r\nLambda-Runtime-Trace-Id: %074d\r\nContent-Type: application/json\r\n"
                                "Content-Length: %zu\r\n\r\n", 0, 0, 0, 0, event->length);
        memcpy(out + head, event->bytes, event->length);
        return send_all(worker, out, head + event->length);
    }
    int head = 4 + sprintf(out + 4, "%c%c%c%c%036d%c%056d%c%074d%c%c", 0, 1, 0, 36, 0, 56, 0, 74, 0, 0, 0);
    uint32_t length = head - 4 + event->length;
    memcpy(out, &length, 4);
    memcpy(out + head, event->bytes, event->length);
    send_all(events_of[worker], out, head + event->length);
}

static void is_idle(int worker) {
    struct waiting *its = &waiting[kinds[worker]];
    if (its->first == its->last) its->idle[its->idle_count++] = worker;
    else give(worker, &its->events[its->first++ % connections_max]);
}

static void invoke(int from, enum kind kind, const char *body, size_t length) {
    struct waiting *its = &waiting[kind];
    struct event *event = &its->events[its->last % connections_max];
    check(length > event_max);
    *event = (struct event){.from = from, .length = length};
    memcpy(event->bytes, body, length);
    if (its->idle_count) give(its->idle[--its->idle_count], event);
    else its->last++;
}

// A frame with a reply, and one that asks for more.
static void hear_native(int worker, char *in, ssize_t n) {
    uint32_t length;
    memcpy(&length, in, 4);
    if (n > 9 && in[4] == 2) answer(caller_of[worker], in + 6, length - 2);
    is_idle(worker);
}

static void hear_http(int fd, char *in, ssize_t n) {
    in[n] = 0;
    char *path = strchr(in, '/'), *body = strstr(in, "\r\n\r\n");
    check(!path || !body);
    body += 4;
    size_t length = in + n - body;
    if (path[1] == '0') return answer(fd, "ok", 2);
    if (path[1] == 'n') return invoke(fd, native, body, length);
    if (path[1] == 'p') return invoke(fd, provided, body, length);
    kinds[fd] = provided;
    if (*in == 'G') return is_idle(fd);
    answer(caller_of[fd], body, length);
    static const char taken[] = "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n"
                                "Content-Length: 15\r\n\r\n{\"status\":\"OK\"}";
    send_all(fd, taken, sizeof taken - 1);
}

// Starts a worker, which ends with us.
static void start(const char *program, const char *api) {
    int talk[2], events[2];
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk) || pipe2(events, O_CLOEXEC));
    pid_t pid = fork();
    check(pid < 0);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (api) setenv("AWS_LAMBDA_RUNTIME_API", api, 1);
        dup2(talk[1], 0);
        // It may be where the other is to be, and then has to lose its flag.
        if (dup2(events[0], 3) == events[0]) fcntl(3, F_SETFD, 0);
        execl(program, program, (char *)0);
        _exit(127);
    }
    close(talk[1]);
    close(events[0]);
    if (api) return;
    events_of[talk[0]] = events[1];
    watch(talk[0], native);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    char api[32];
    check(argc != 4);
    signal(SIGPIPE, SIG_IGN);
    // It goes with who started it.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    check((watcher = epoll_create1(EPOLL_CLOEXEC)) < 0);
    check((listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0);
    check(bind(listener, (void *)&address, size) || listen(listener, 128));
    check(getsockname(listener, (void *)&address, &size));
    watch(listener, caller);
    sprintf(api, "127.0.0.1:%d", ntohs(address.sin_port));
    for (int n = 0; n < atoi(argv[1]); n++) {
        start(argv[2], 0);
        start(argv[3], api);
    }
    printf("%s\n", api);
    fflush(stdout);
    for (;;) {
        static char in[1 << 16];
        struct epoll_event events[64];
        int count = epoll_wait(watcher, events, 64, -1), one = 1;
        for (int n = 0; n < count; n++) {
            int fd = events[n].data.fd;
            if (fd == listener) {
                check((fd = accept4(listener, 0, 0, SOCK_CLOEXEC)) < 0);
                check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
                watch(fd, caller);
                continue;
            }
            ssize_t length = read(fd, in, sizeof in - 1);
            if (length <= 0) close(fd);
            else if (kinds[fd] == native) hear_native(fd, in, length);
            else hear_http(fd, in, length);
        }
    }
}

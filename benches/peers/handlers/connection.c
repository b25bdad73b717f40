// One connection on standard input and output, HTTP/1.1 and kept: tcpserver, xinetd. Where there
// is a Lambda Runtime API it is polled instead: `provided`.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>

#include "work.h"

static char in[MOST + 4096];
static size_t have;

// Reads one message; where its body is, and how long. Negative at the end.
static long message(int from, char **body) {
    for (;;) {
        char *end = have ? memmem(in, have, "\r\n\r\n", 4) : NULL;
        if (end) {
            long length = 0;
            for (char *line = in; line < end; line = strchr(line, '\n') + 1)
                if (!strncasecmp(line, "content-length:", 15)) length = atol(line + 15);
            *body = end + 4;
            while (have < (size_t)(*body - in) + length) {
                ssize_t n = read(from, in + have, sizeof in - 1 - have);
                if (n <= 0) return -1;
                have += n;
            }
            return length;
        }
        ssize_t n = read(from, in + have, sizeof in - 1 - have);
        if (n <= 0) return -1;
        have += n;
        in[have] = 0;
    }
}

static int serve(void) {
    static char reply[MOST + 4096], made[MOST + 64];
    char *body;
    for (long length; (length = message(0, &body)) >= 0; have = 0) {
        size_t n = work(body, length, made);
        int head = sprintf(reply, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", n);
        memcpy(reply + head, made, n);
        if (write(1, reply, head + n) < 0) return 1;
        if (strcasestr(in, "\nconnection: close")) return 0;
    }
    return 0;
}

static int poll_for_work(void) {
    static char out[MOST + 4096], made[MOST + 64];
    char host[64] = "", id[64], *body;
    const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
    strncpy(host, api ? api : "", sizeof host - 1);
    char *colon = strchr(host, ':');
    if (!colon) return 2;
    *colon = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
    inet_pton(AF_INET, host, &to.sin_addr);
    int api_socket = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(api_socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(api_socket, (struct sockaddr *)&to, sizeof to)) return 3;
    for (;;) {
        int length = sprintf(out, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: a\r\n\r\n");
        if (write(api_socket, out, length) < 0) return 4;
        have = 0;
        long event = message(api_socket, &body);
        if (event < 0) return 0;
        char *name = strcasestr(in, "\nlambda-runtime-aws-request-id:");
        if (!name || sscanf(strchr(name, ':') + 1, " %60[0-9a-f-]", id) != 1) return 5;
        size_t n = work(body, event, made);
        length = sprintf(out, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", id, n);
        memcpy(out + length, made, n);
        if (write(api_socket, out, length + n) < 0) return 6;
        have = 0;
        if (message(api_socket, &body) < 0) return 0;
    }
}

int main(void) { return getenv("AWS_LAMBDA_RUNTIME_API") ? poll_for_work() : serve(); }

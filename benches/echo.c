// The smallest worker there is, so that what is measured is the host: a native one that echoes
// its event over the wire, or with an argument one that echoes standard input once.
#include <time.h>
#include <unistd.h>

#include "wire.h"

// The largest event there is, and a little.
static unsigned char in[7 << 20], out[7 << 20];

static int once(void) {
    ssize_t n, length = 0;
    while ((n = read(0, in + length, sizeof in - length)) > 0) length += n;
    return write(1, in, length) != length;
}

static void work(void) {
    struct timespec from, now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    do clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < 1000000);
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) return once();
    if (write(wire_out, wire_hello, sizeof wire_hello) < 0) return 1;
    for (size_t have = 0;;) {
        ssize_t n = read(wire_events, in + have, sizeof in - have);
        if (n <= 0) return 0;
        have += n;
        size_t whole = wire_whole(in, have), id_length;
        if (!whole) continue;
        // The event may ask for a crash, or for a millisecond's work; everything else is echoed.
        unsigned char *event = wire_event(in, &id_length);
        size_t length = in + whole - event;
        if (length > 6 && !memcmp(event, "\"crash", 6)) _exit(9);
        if (length > 5 && !memcmp(event, "\"work", 5)) work();
        memcpy(out + 5 + id_length, event, length);
        length = wire_reply(out, in, id_length, length);
        if (write(wire_out, out, length) < 0) return 1;
        have = 0;
    }
}

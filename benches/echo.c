// The smallest worker there is, so that what is measured is the host: a native one that echoes
// its event over the wire, or with an argument one that echoes standard input once.
#include <stdint.h>
#include <string.h>
#include <unistd.h>

// The largest event there is, and a little.
static unsigned char in[7 << 20], out[7 << 20];

static unsigned char *varint(unsigned char *p, uint64_t *value) {
    int shift = 0;
    for (*value = 0;; shift += 7) {
        *value |= (uint64_t)(*p & 127) << shift;
        if (!(*p++ & 128)) return p;
    }
}

static int once(void) {
    ssize_t n, length = 0;
    while ((n = read(0, in + length, sizeof in - length)) > 0) length += n;
    return write(1, in, length) != length;
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) return once();
    static const unsigned char hello[] = {2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1};
    if (write(0, hello, sizeof hello) < 0) return 1;
    size_t have = 0;
    for (;;) {
        ssize_t n = read(0, in + have, sizeof in - have);
        if (n <= 0) return 0;
        have += n;
        uint32_t length;
        if (have < 4) continue;
        memcpy(&length, in, 4);
        if (have < 4 + length) continue;
        // Invoke: number 0, id, deadline, five texts; the rest is the event.
        uint64_t value;
        unsigned char *id = in + 5, *p = varint(id, &value);
        size_t id_length = p - id;
        p = varint(p, &value);
        for (int text = 0; text < 5; text++) {
            p = varint(p, &value);
            p += value;
        }
        // The event may ask for a crash; everything else is echoed.
        size_t event = in + 4 + length - p;
        if (event > 6 && !memcmp(p, "\"crash", 6)) _exit(9);
        uint32_t reply = 1 + id_length + event;
        memcpy(out, &reply, 4);
        out[4] = 2;
        memcpy(out + 5, id, id_length);
        memcpy(out + 5 + id_length, p, event);
        memcpy(out + 4 + reply, "\1\0\0\0\1", 5);
        if (write(0, out, 4 + reply + 5) < 0) return 1;
        have = 0;
    }
}

// A worker on hob's wire, by hand: a process that stays, as a FastCGI one does.
#include <stdint.h>

#include "work.h"

static unsigned char in[MOST + 8192], out[MOST + 64];
static char reply[MOST + 16];

static unsigned char *varint(unsigned char *p, uint64_t *value) {
    int shift = 0;
    for (*value = 0;; shift += 7) {
        *value |= (uint64_t)(*p & 127) << shift;
        if (!(*p++ & 128)) return p;
    }
}

int main(void) {
    static const unsigned char hello[] = {2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1};
    if (write(0, hello, sizeof hello) < 0) return 1;
    for (size_t have = 0;;) {
        ssize_t n = read(0, in + have, sizeof in - have);
        if (n <= 0) return 0;
        have += n;
        uint32_t length;
        if (have < 4) continue;
        memcpy(&length, in, 4);
        if (have < 4 + length) continue;
        // An invocation: its number, a deadline, five texts; the rest is the event.
        uint64_t value;
        unsigned char *id = in + 5, *p = varint(id, &value);
        size_t id_length = p - id;
        p = varint(p, &value);
        for (int text = 0; text < 5; text++) {
            p = varint(p, &value);
            p += value;
        }
        size_t done = work((char *)p, in + 4 + length - p, reply);
        uint32_t frame = 1 + id_length + done;
        memcpy(out, &frame, 4);
        out[4] = 2;
        memcpy(out + 5, id, id_length);
        memcpy(out + 5 + id_length, reply, done);
        memcpy(out + 4 + frame, "\1\0\0\0\1", 5);
        if (write(0, out, 4 + frame + 5) < 0) return 1;
        have = 0;
    }
}

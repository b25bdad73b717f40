// What a worker in C needs of hob's wire.
#include <stdint.h>
#include <string.h>

// The first words of a worker: hello, and ready.
static const unsigned char wire_hello[] = {2, 0, 0, 0, 0, 5, 1, 0, 0, 0, 1};

// What a worker reads its events from, and writes to.
enum { wire_events = 3, wire_out = 0 };

static inline unsigned char *wire_varint(unsigned char *p, uint64_t *value) {
    int shift = 0;
    for (*value = 0;; shift += 7) {
        *value |= (uint64_t)(*p & 127) << shift;
        if (!(*p++ & 128)) return p;
    }
}

// An invocation: its number, a deadline, five texts; the rest is the event, which this finds. The
// number begins at the sixth byte.
static inline unsigned char *wire_event(unsigned char *frame, size_t *id_length) {
    uint64_t value;
    unsigned char *p = wire_varint(frame + 5, &value);
    *id_length = p - (frame + 5);
    p = wire_varint(p, &value);
    for (int text = 0; text < 5; text++) {
        p = wire_varint(p, &value);
        p += value;
    }
    return p;
}

// The length of the frame that begins `in`, with its prefix; 0 while not all of it is there.
static inline size_t wire_whole(const unsigned char *in, size_t have) {
    uint32_t length;
    if (have < 4) return 0;
    memcpy(&length, in, 4);
    return have < 4 + (size_t)length ? 0 : 4 + (size_t)length;
}

// Puts what stands around a reply of so many bytes at `out` + 5 + id_length: its frame, and the wish for
// more work. Returns how many bytes that is in all.
static inline size_t wire_reply(unsigned char *out, const unsigned char *frame, size_t id_length, size_t reply) {
    uint32_t length = 1 + id_length + reply;
    memcpy(out, &length, 4);
    out[4] = 2;
    memcpy(out + 5, frame + 5, id_length);
    memcpy(out + 4 + length, "\1\0\0\0\1", 5);
    return 4 + length + 5;
}

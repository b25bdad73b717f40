// A worker on hob's wire, by hand: a process that stays, as a FastCGI one does.
#include "../../wire.h"
#include "work.h"

static unsigned char in[MOST + 8192], out[MOST + 64];
static char reply[MOST + 16];

int main(void) {
    if (write(wire_out, wire_hello, sizeof wire_hello) < 0) return 1;
    for (size_t have = 0;;) {
        ssize_t n = read(wire_events, in + have, sizeof in - have);
        if (n <= 0) return 0;
        have += n;
        size_t whole = wire_whole(in, have), id_length;
        if (!whole) continue;
        unsigned char *event = wire_event(in, &id_length);
        size_t done = work((char *)event, in + whole - event, reply);
        memcpy(out + 5 + id_length, reply, done);
        done = wire_reply(out, in, id_length, done);
        if (write(wire_out, out, done) < 0) return 1;
        have = 0;
    }
}

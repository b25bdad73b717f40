// What every handler does: the event comes back with one more member. An event may ask for more:
// {"do":"wait","ms":N}, {"do":"crash"}, {"do":"hang"}.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64 * 1024 };

static size_t work(const char *event, size_t length, char *reply) {
    static const char more[] = ",\"added\":1}";
    char text[256] = "";
    memcpy(text, event, length < sizeof text - 1 ? length : sizeof text - 1);
    const char *what = strstr(text, "\"do\"");
    if (what && strstr(what, "crash")) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (what && strstr(what, "hang")) pause();
    const char *ms = what ? strstr(what, "\"ms\":") : NULL;
    if (ms) {
        long n = atol(ms + 5);
        struct timespec time = {n / 1000, n % 1000 * 1000000};
        nanosleep(&time, NULL);
    }
    while (length > 0 && event[length - 1] != '}') length--;
    if (length == 0) return 0;
    memcpy(reply, event, length - 1);
    memcpy(reply + length - 1, more, sizeof more - 1);
    return length - 1 + sizeof more - 1;
}

static size_t take(int from, char *event, size_t most) {
    size_t have = 0;
    ssize_t n;
    while (have < most && (n = read(from, event + have, most - have)) > 0) have += n;
    return have;
}

// Event on standard input (or as an argument), reply on standard output: exec, webhook.
#include "work.h"

int main(int argc, char **argv) {
    static char event[MOST], reply[MOST + 64];
    size_t length;
    if (argc > 1) {
        length = strlen(argv[1]) < MOST ? strlen(argv[1]) : MOST;
        memcpy(event, argv[1], length);
    } else {
        length = take(0, event, MOST);
    }
    length = work(event, length, reply);
    return write(1, reply, length) != (ssize_t)length;
}

// A CGI program.
#include "work.h"

int main(void) {
    static char event[MOST], reply[MOST + 256], body[MOST + 64];
    const char *told = getenv("CONTENT_LENGTH");
    size_t length = told ? strtoul(told, NULL, 10) : 0;
    length = work(event, take(0, event, length < MOST ? length : MOST), body);
    int head = sprintf(reply, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", length);
    memcpy(reply + head, body, length);
    length += head;
    return write(1, reply, length) != (ssize_t)length;
}

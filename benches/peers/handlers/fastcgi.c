// A FastCGI program that stays.
#include <fcgiapp.h>

#include "work.h"

int main(void) {
    static char event[MOST], reply[MOST + 64];
    FCGX_Request request;
    FCGX_Init();
    FCGX_InitRequest(&request, 0, 0);
    while (FCGX_Accept_r(&request) == 0) {
        size_t length = FCGX_GetStr(event, MOST, request.in);
        length = work(event, length, reply);
        FCGX_FPrintF(request.out, "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", (int)length);
        FCGX_PutStr(reply, length, request.out);
        FCGX_Finish_r(&request);
    }
    return 0;
}

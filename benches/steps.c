// Runs a process by single instructions until it is told to stop, and keeps how many there were in a file
// that the bench reads. What the kernel does in a system call counts as one.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t over;
static pid_t pid;

// The process may wait for long: it is stopped, and so is our waiting for it.
static void end(int signal) {
    (void)signal;
    over = 1;
    ptrace(PTRACE_INTERRUPT, pid, 0, 0);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    pid = atoi(argv[1]);
    int file = open(argv[2], O_RDWR | O_CLOEXEC), status, pass = 0;
    volatile uint64_t *count = mmap(0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (count == MAP_FAILED) return 1;
    struct sigaction action = {.sa_handler = end, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, 0);
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) || ptrace(PTRACE_INTERRUPT, pid, 0, 0)) return 1;
    if (waitpid(pid, &status, __WALL) != pid) return 1;
    if (puts("attached") < 0 || fflush(stdout)) return 1;
    // It is let go only after the trap of its last step, which would end it without us.
    while (!over || status >> 16) {
        // Not every architecture has single steps.
        if (ptrace(PTRACE_SINGLESTEP, pid, 0, pass)) return 1;
        if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) return 1;
        int signal = WSTOPSIG(status);
        pass = signal == SIGTRAP || status >> 16 ? 0 : signal;
        ++*count;
    }
    return ptrace(PTRACE_DETACH, pid, 0, 0) != 0;
}

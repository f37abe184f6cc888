/* Makes system calls by every calling convention of this processor and writes what each gave, one line a call:
 *
 *     CONVENTION NAME RESULT
 *
 * CONVENTION is native, x32 (the native call with the x32 bit in its number) or i386 (int 0x80). RESULT is ok, the number of the error, or
 * killed-SIGNAL. Each call is made in a process of its own. The test in calls.rs compiles and runs it. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define HIGH (1UL << 32)
#define X32 0x40000000L
#define NONE (-1L)

/* They are tried on the descriptor -1, which gives EBADF when the filter lets the call through. */
#define SNAP_DESTROY 0x5000940fUL
#define SNAP_DESTROY_V2 0x5000943fUL
#define GET_SUBVOL_ROOTREF 0xd000943dUL
#define NEWUSER 0x10000000UL
#define NEWNET 0x40000000UL

struct call {
    const char *name;
    long native, i386;
    unsigned long a[5];
};

/* In memory below 4 GiB, where int 0x80 can reach it. */
static uint32_t *low;

static const struct call CALLS[] = {
    {"socket-unix", SYS_socket, 359, {1, 1, 0}},
    {"socket-inet", SYS_socket, 359, {2, 1, 0}},
    {"socket-inet6", SYS_socket, 359, {10, 1, 0}},
    {"socket-netlink", SYS_socket, 359, {16, 3, 0}},
    {"socket-packet", SYS_socket, 359, {17, 2, 0}},
    {"socket-unix-high", SYS_socket, 359, {1 | HIGH, 1, 0}},
    {"socket-vsock", SYS_socket, 359, {40, 1, 0}},
    {"socket-alg", SYS_socket, 359, {38, 5, 0}},
    {"socket-rds", SYS_socket, 359, {21, 5, 0}},
    {"socket-tipc", SYS_socket, 359, {30, 1, 0}},
    {"socket-vsock-high", SYS_socket, 359, {40 | HIGH, 1, 0}},
    {"socket-alg-high", SYS_socket, 359, {38 | HIGH, 5, 0}},
    {"socket-vsock-all-high", SYS_socket, 359, {40 | 0xffffffff00000000UL, 1, 0}},
    {"socketpair-unix", SYS_socketpair, 360, {1, 1, 0, NONE}},
    {"socketpair-vsock", SYS_socketpair, 360, {40, 1, 0, NONE}},
    {"socketpair-vsock-high", SYS_socketpair, 360, {40 | HIGH, 1, 0, NONE}},
    {"socketcall-socket-vsock", NONE, 102, {1, NONE}},
    {"socketcall-socket-vsock-high", NONE, 102, {1 | HIGH, NONE}},
    {"socketcall-socketpair-vsock", NONE, 102, {8, NONE}},
    {"clone-newuser", SYS_clone, 120, {NEWUSER | SIGCHLD}},
    {"clone-newuser-high", SYS_clone, 120, {NEWUSER | SIGCHLD | HIGH}},
    {"clone-newnet", SYS_clone, 120, {NEWNET | SIGCHLD}},
    {"clone-plain", SYS_clone, 120, {SIGCHLD}},
    {"clone3", SYS_clone3, 435, {0, 0}},
    {"unshare-newuser", SYS_unshare, 310, {NEWUSER}},
    {"unshare-newuser-high", SYS_unshare, 310, {NEWUSER | HIGH}},
    {"setns", SYS_setns, 346, {NONE, 0}},
    {"personality-linux", SYS_personality, 136, {0}},
    {"personality-32-bit", SYS_personality, 136, {8}},
    {"personality-ask", SYS_personality, 136, {0xffffffff}},
    {"personality-no-randomize", SYS_personality, 136, {0x40000}},
    {"personality-no-randomize-high", SYS_personality, 136, {0x40000 | HIGH}},
    {"personality-read-implies-exec", SYS_personality, 136, {0x400000}},
    {"ioctl-other", SYS_ioctl, 54, {NONE, 0x5401, 0}},
    {"ioctl-zero", SYS_ioctl, 54, {NONE, 0, 0}},
    {"ioctl-all-ones", SYS_ioctl, 54, {NONE, 0xffffffff, 0}},
    {"ioctl-destroy-by-name", SYS_ioctl, 54, {NONE, SNAP_DESTROY, 0}},
    {"ioctl-almost-destroy-by-id", SYS_ioctl, 54, {NONE, SNAP_DESTROY_V2 ^ 0x80000000UL, 0}},
    {"ioctl-destroy-by-id", SYS_ioctl, 54, {NONE, SNAP_DESTROY_V2, 0}},
    {"ioctl-destroy-by-id-high", SYS_ioctl, 54, {NONE, SNAP_DESTROY_V2 | HIGH, 0}},
    {"ioctl-almost-subvolumes", SYS_ioctl, 54, {NONE, GET_SUBVOL_ROOTREF ^ 0x80000000UL, 0}},
    {"ioctl-subvolumes", SYS_ioctl, 54, {NONE, GET_SUBVOL_ROOTREF, 0}},
    {"ioctl-subvolumes-high", SYS_ioctl, 54, {NONE, GET_SUBVOL_ROOTREF | HIGH, 0}},
    {"keyctl", SYS_keyctl, 288, {0, 0}},
    {"add_key", SYS_add_key, 286, {0, 0, 0, 0, 0}},
    {"request_key", SYS_request_key, 287, {0, 0, 0, 0}},
    {"bpf", SYS_bpf, 357, {0, 0, 0}},
    {"mount", SYS_mount, 21, {0, 0, 0, 0, 0}},
    {"umount2", SYS_umount2, 52, {0, 0}},
    {"open_by_handle_at", SYS_open_by_handle_at, 342, {NONE, 0, 0}},
    {"io_uring_setup", SYS_io_uring_setup, 425, {1, 0}},
    {"userfaultfd", SYS_userfaultfd, 374, {0}},
    {"perf_event_open", SYS_perf_event_open, 336, {0, 0, NONE, NONE, 0}},
    {"init_module", SYS_init_module, 128, {0, 0, 0}},
    {"kexec_load", SYS_kexec_load, 283, {0, 0, 0, 0}},
    {"swapon", SYS_swapon, 87, {0, 0}},
    {"pidfd_getfd", SYS_pidfd_getfd, 438, {NONE, 0, 0}},
    {"quotactl", SYS_quotactl, 131, {0, 0, 0, 0}},
    {"vhangup", SYS_vhangup, 111, {0}},
    {"getpid", SYS_getpid, 20, {0}},
};

static long native(long nr, const unsigned long *a) {
    long r;
    register unsigned long r10 __asm__("r10") = a[3];
    register unsigned long r8 __asm__("r8") = a[4];
    __asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return r;
}

static long i386(long nr, const unsigned long *a) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4]) : "memory", "r8", "r9", "r10", "r11");
    return (int)r;
}

static void report(const char *convention, const struct call *c, long nr, long (*make)(long, const unsigned long *)) {
    int out[2], status;
    long r = 0;
    unsigned long a[5];
    memcpy(a, c->a, sizeof a);
    if (c->native == SYS_socketpair)
        a[3] = (unsigned long)(uintptr_t)(low + 8);
    if (c->native == NONE)
        a[1] = (unsigned long)(uintptr_t)low;
    if (pipe(out))
        return;
    pid_t child = fork();
    if (child == 0) {
        pid_t me = getpid();
        r = make(nr, a);
        /* The child of a clone that went through. */
        if (getpid() != me)
            _exit(0);
        if (write(out[1], &r, sizeof r) != sizeof r)
            _exit(1);
        _exit(0);
    }
    close(out[1]);
    ssize_t n = read(out[0], &r, sizeof r);
    close(out[0]);
    waitpid(child, &status, 0);
    if (n == sizeof r && r >= 0)
        printf("%s %s ok\n", convention, c->name);
    else if (n == sizeof r)
        printf("%s %s %ld\n", convention, c->name, -r);
    else
        printf("%s %s killed-%d\n", convention, c->name, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED)
        return 1;
    /* socketcall(SYS_SOCKET) and socketcall(SYS_SOCKETPAIR) take their arguments from here: AF_VSOCK, SOCK_STREAM, 0, and where the pair goes. */
    low[0] = 40, low[1] = 1, low[2] = 0, low[3] = (uint32_t)(uintptr_t)(low + 8);
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
        const struct call *c = CALLS + i;
        if (c->native != NONE) {
            report("native", c, c->native, native);
            report("x32", c, c->native | X32, native);
        }
        report("i386", c, c->i386, i386);
    }
    puts("done");
    return 0;
}

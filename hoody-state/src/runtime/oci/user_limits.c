/* Takes as much as it can of something that the kernel counts by user, says how much that was, and keeps it:
 *     user_limits inotify | mqueue | timers [MOST]
 */
#include <errno.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

static int take(const char *what, int n) {
    if (!strcmp(what, "inotify"))
        return inotify_init1(0);
    if (!strcmp(what, "mqueue")) {
        char name[64];
        snprintf(name, sizeof name, "/user-limits-%d-%d", getpid(), n);
        mqd_t q = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
        /* It counts as long as it is open. */
        mq_unlink(name);
        return q;
    }
    timer_t t;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    return timer_create(CLOCK_MONOTONIC, &event, &t);
}

int main(int argc, char **argv) {
    int n = 0, most = argc > 2 ? atoi(argv[2]) : 1 << 20;
    while (n < most && take(argv[1], n) >= 0)
        n++;
    printf("%s %d %s\n", argv[1], n, n < most ? strerror(errno) : "enough");
    fflush(stdout);
    if (argc <= 2)
        for (;;)
            pause();
    return 0;
}

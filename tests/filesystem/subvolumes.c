/* What a container does with subvolumes:
 *     subvolumes create DIR NAME | destroy DIR NAME | destroy-by-id DIR ID | id DIR | snapshot FROM DIR NAME
 *     subvolumes children DIR | name DIR ID DIRECTORY | unseal DIR
 * Says "ok", an id, or the error. With AS_USER in the environment it is that user. */
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static struct btrfs_ioctl_vol_args v1;
    static struct btrfs_ioctl_vol_args_v2 v2;
    static struct btrfs_ioctl_ino_lookup_args look;
    static struct btrfs_ioctl_get_subvol_rootref_args refs;
    static struct btrfs_ioctl_ino_lookup_user_args user;
    static __u64 none;
    if (getenv("AS_USER") && (setgid(atoi(getenv("AS_USER"))) || setuid(atoi(getenv("AS_USER")))))
        return 1;
    int r = -1, dir = open(argv[2], O_RDONLY | O_DIRECTORY);
    if (!strcmp(argv[1], "create")) {
        strncpy(v1.name, argv[3], sizeof v1.name - 1);
        r = ioctl(dir, BTRFS_IOC_SUBVOL_CREATE, &v1);
    } else if (!strcmp(argv[1], "destroy")) {
        strncpy(v1.name, argv[3], sizeof v1.name - 1);
        r = ioctl(dir, BTRFS_IOC_SNAP_DESTROY, &v1);
    } else if (!strcmp(argv[1], "destroy-by-id")) {
        v2.flags = BTRFS_SUBVOL_SPEC_BY_ID;
        v2.subvolid = strtoull(argv[3], 0, 10);
        r = ioctl(dir, BTRFS_IOC_SNAP_DESTROY_V2, &v2);
    } else if (!strcmp(argv[1], "snapshot")) {
        v2.fd = dir;
        strncpy(v2.name, argv[4], sizeof v2.name - 1);
        r = ioctl(open(argv[3], O_RDONLY | O_DIRECTORY), BTRFS_IOC_SNAP_CREATE_V2, &v2);
    } else if (!strcmp(argv[1], "children")) {
        r = ioctl(dir, BTRFS_IOC_GET_SUBVOL_ROOTREF, &refs);
        for (int i = 0; r == 0 && i < refs.num_items; i++)
            printf("%llu ", (unsigned long long)refs.rootref[i].treeid);
    } else if (!strcmp(argv[1], "name")) {
        user.treeid = strtoull(argv[3], 0, 10);
        user.dirid = strtoull(argv[4], 0, 10);
        r = ioctl(dir, BTRFS_IOC_INO_LOOKUP_USER, &user);
        if (r == 0)
            printf("%s%s ", user.path, user.name);
    } else if (!strcmp(argv[1], "unseal")) {
        r = ioctl(dir, BTRFS_IOC_SUBVOL_SETFLAGS, &none);
    } else if (!strcmp(argv[1], "id")) {
        look.objectid = 256;
        r = ioctl(dir, BTRFS_IOC_INO_LOOKUP, &look);
        if (r == 0) {
            printf("%llu\n", (unsigned long long)look.treeid);
            return 0;
        }
    }
    puts(r == 0 ? "ok" : strerror(errno));
    return 0;
}

#!/bin/sh
# The first process of a guest. The kernel's command line sets ADDRESS, HOST, DISK_BYTES, and SHARED: a directory of the host with the kernel modules and the programs under test.
# The guest's root is the host's `/`, read-only. Whatever a guest writes goes to its memory or to its own disks.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /mnt
mkdir /mnt/shared /mnt/disk
mount -t hostfs -o "ro,$SHARED" shared /mnt/shared
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
hostname guest
for module in fuse loop 'nbd nbds_max=2'; do modprobe -d /mnt/shared $module; done
ip link set lo up
ip addr add "$ADDRESS/24" dev vec0
ip link set vec0 up
for n in 0 1; do
  /mnt/shared/guest-agent disk "$HOST:700$((n + 1))" /dev/nbd$n "$DISK_BYTES" &
  until [ "$(cat /sys/block/nbd$n/size)" -gt 0 ]; do sleep 0.02; done
done
exec /mnt/shared/guest-agent serve 7000

//! BTRFS: subvolumes through `btrfs-uapi`, every call on directory descriptors.

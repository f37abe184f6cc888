#!/usr/bin/env bash
# Installs what building and running need, from Debian's packages; does nothing when all is there.
set -euo pipefail
need=()
have() { command -v "$1" >/dev/null 2>&1; }
have cc || need+=(build-essential)
have pkg-config || need+=(pkg-config)
# The tests drive databases from another language too.
have python3 && python3 -c 'import sqlite3' 2>/dev/null || need+=(python3)
# Two servers on one machine are tested in network namespaces.
have ip || need+=(iproute2)
have jq || need+=(jq)
have curl || need+=(curl ca-certificates)
have runc || have crun || have youki || need+=(runc)
have mkfs.btrfs || need+=(btrfs-progs)
[ -x /bin/busybox ] && ! /lib64/ld-linux-x86-64.so.2 --verify /bin/busybox 2>/dev/null || need+=(busybox-static)
# Power cuts and cgroup v2 alone are tested in guests: a Linux kernel as an ordinary process, and the modules it loads.
have linux.uml || need+=(user-mode-linux)
have depmod || need+=(kmod)
have mkfs.ext4 || need+=(e2fsprogs)
# bindgen, which btrfs-uapi builds with, loads libclang.
ldconfig -p | grep -q 'libclang[-.0-9]*\.so' && [ -n "$(find /usr/lib/clang /usr/lib/llvm-*/lib/clang -name stddef.h -print -quit 2>/dev/null)" ] || need+=(libclang-dev)
if [ ${#need[@]} -gt 0 ]; then
  echo "installing: ${need[*]}"
  ${SUDO:-} apt-get update -qq
  ${SUDO:-} env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi
have cargo || { echo "Rust is missing: install it with rustup, then run this again" >&2; exit 1; }

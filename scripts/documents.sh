#!/usr/bin/env bash
# Runs the documents: every block marked ```sh, in order and as it is typed, a document at a time. A block that fails ends the run and is shown.
#
#   scripts/documents.sh [DOCUMENT…]       needs root and built programs (BIN=target/debug); without names: every document that has such a block
#
# Each document runs in namespaces of its own for mounts, network and processes, with empty /var/lib, /srv and /run, and an empty home. Its processes and
# mounts end with these. Control groups do not, so `unmount` takes them down. A block marked ```console does not run: it builds, takes minutes, or needs
# the network or systemd.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
bin=$(realpath "${BIN:-target/debug}")
documents=("$@")
[ ${#documents[@]} -gt 0 ] || mapfile -t documents < <(grep -l '^```sh$' README.md docs/*.md docs/*/*.md)

# The blocks of a document as one script; each says where it stands before it runs.
script_of() {
  awk -v document="$1" '
    /^```sh$/ { inside = 1; printf "at=%s:%d\n", document, NR + 1; next }
    /^```/ { inside = 0; next }
    inside { print }
  ' "$1"
}

run_one() {
  local document=$1 scratch
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/hoody-documents-XXXXXX")
  chmod 755 "$scratch"
  mkdir "$scratch/lib" "$scratch/srv" "$scratch/home"
  {
    echo 'set -eEu'
    echo 'trap '"'"'echo "FAILED in the block at $at (line $LINENO of its script)" >&2'"'"' ERR'
    script_of "$document"
  } >"$scratch/script"
  local result=0
  timeout --kill-after=5 "${LIMIT:-240}" unshare --mount --net --pid --fork --kill-child --mount-proc bash -c '
    scratch=$1 bin=$2 root=$3
    ip link set lo up
    mount --bind "$scratch/lib" /var/lib
    mount --bind "$scratch/srv" /srv
    mount -t tmpfs -o mode=755 tmpfs /run
    export PATH=$bin:$PATH HOME=$scratch/home TMPDIR=/tmp
    cd "$root"
    bash "$scratch/script"; result=$?
    # Servers and daemons that the document started; then what outlives this namespace.
    for pid in $(ps -e -o pid= -o comm= | awk "\$2 ~ /^hoody-state-htt/ { print \$1 }"); do kill -TERM "$pid"; done
    for _ in $(seq 100); do ps -e -o comm= | grep -q "^hoody-state-htt" || break; sleep 0.1; done
    for data in /var/lib/*/; do [ -e "$data/pool.img" ] && hoody-state-http unmount --data "$data"; done
    exit $result
  ' documents "$scratch" "$bin" "$root" >"$scratch/output" 2>&1 || result=$?
  if [ "$result" != 0 ]; then
    echo "$document: exit $result. The end of its output:" >&2
    tail -n "${LINES_SHOWN:-40}" "$scratch/output" >&2
    return 1
  fi
  [ -z "${VERBOSE:-}" ] || cat "$scratch/output"
  echo "$document: $(grep -c '^```sh$' "$document") blocks ran"
  rm -rf "$scratch"
}

for document in "${documents[@]}"; do run_one "$document"; done

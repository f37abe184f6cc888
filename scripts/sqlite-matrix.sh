#!/usr/bin/env bash
# Every pattern and journal mode on a mount, 8 processes, 2 s each, busy_timeout 0: nothing may fail. Then threads, then kills. For CI; a debug build will do.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-2}
dir=$(mktemp -d)
mkdir "$dir/back" "$dir/mnt"
daemon=target/debug/hoody-state-fuse
cleanup() {
  "$daemon" unmount "$dir/mnt" --control "$dir/sock" >/dev/null 2>&1 || umount -l "$dir/mnt" 2>/dev/null || true
  rm -rf --one-file-system "$dir"
}
trap cleanup EXIT
cargo test --locked -q --workspace --bench sqlite --no-run
run() { cargo test --locked -q --workspace --bench sqlite -- --dir "$dir/mnt=0" --strict "$dir/mnt" --synchronous normal --seconds "$seconds" "$@"; }
"$daemon" mount "$dir/back" "$dir/mnt" --control "$dir/sock"
run --processes 8 --journal wal,delete,truncate,persist --pattern insert,deferred,immediate,mix,long-reader,reads,scans,half-ro
run --processes 2 --threads 4 --journal wal,delete,truncate,persist --pattern mix,half-ro
run --processes 8 --journal wal,delete --pattern deferred --kills 10
"$daemon" status "$dir/mnt" --control "$dir/sock"

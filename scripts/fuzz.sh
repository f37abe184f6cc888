#!/usr/bin/env bash
# scripts/fuzz.sh SECONDS [TARGET...]: runs every fuzz target (or the named ones), SECONDS in all, shared equally among them.
#
# How to add a target: put it in fuzz/fuzz_targets/NAME.rs, add a [[bin]] of that name to fuzz/Cargo.toml, and commit a few small valid inputs in
# fuzz/corpus/NAME/ (a target without any is an error). Nothing else: this script, `make fuzz` and CI find it by itself.
# A target must not touch anything outside of memory, or of a directory of its own that it removes.
#
# A failure prints the command that repeats it. Put its input into the corpus together with the fix: every run begins with the whole corpus.
# New inputs that a run finds are kept in fuzz/target/corpus, and help later runs on the same machine.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?"usage: scripts/fuzz.sh SECONDS [TARGET...]"}
shift
command -v cargo-fuzz >/dev/null || PATH="$PATH:$PWD/target/cargo-fuzz/bin"
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --version 0.13.2 --root target/cargo-fuzz cargo-fuzz
all=$(cargo fuzz list)
targets=${*:-$all}
# No sanitizer: the code is safe Rust, and without one the stable compiler builds this.
for target in $targets; do
  [ -n "$(ls -A "fuzz/corpus/$target" 2>/dev/null)" ] || { echo "fuzz/corpus/$target is empty: commit a few small valid inputs" >&2; exit 1; }
done
cargo fuzz build --sanitizer none
count=$(wc -w <<<"$targets")
each=$((seconds / count > 0 ? seconds / count : 1))
failed=()
for target in $targets; do
  found=fuzz/target/corpus/$target
  mkdir -p "$found"
  echo "fuzzing $target for $each s"
  # New inputs go to the first directory.
  cargo fuzz run --sanitizer none "$target" "$found" "fuzz/corpus/$target" -- \
    -max_total_time="$each" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -verbosity=0 -print_final_stats=1 2>&1 |
    grep -v -e '^stat::peak' -e '^stat::slowest' -e '^###### ' -e '^"' || failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }

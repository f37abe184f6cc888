#!/usr/bin/env bash
# Third-party programs on a mount (or on any directory): SQLite's mptest and threadtest3 from Debian's source package sqlite3, fsx and the POSIX suite
# pjdfstest from the crates of those names. Fetched by package name and built in a cache outside the repository; nothing of theirs is kept here.
#
#   scripts/third-party.sh DIR…                          # each is a directory to test in
#   PROGRAMS="pjdfstest fsx" scripts/third-party.sh DIR  # only these
#   NATIVE=DIR                                           # what pjdfstest compares with; /tmp if not given
#
# config01 and config02 are left out in WAL mode: their tasks leave it while others are connected, which fails natively too (and mptest then waits for ever).
# mptest's scripts run in four journal modes, and once with SQLite's busy handler taken out at link time: a native directory fails that.
set -euo pipefail
cache=${HOODY_THIRD_PARTY:-${XDG_CACHE_HOME:-$HOME/.cache}/hoody-state-third-party}
mkdir -p "$cache"

fetch_sqlite() {
  [ -e "$cache/sqlite/mptest" ] && return
  local apt="$cache/apt" f
  mkdir -p "$apt/parts" "$apt/lists/partial" "$cache/sqlite"
  # The machine's own sources, as sources of source packages, in a place of our own.
  for f in /etc/apt/sources.list.d/*.sources; do
    [ -e "$f" ] && sed 's/^Types:.*/Types: deb-src/' "$f" >"$apt/parts/$(basename "$f")"
  done
  for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -e "$f" ] && sed -n 's/^deb /deb-src /p' "$f" >"$apt/parts/$(basename "$f" .list).list"
  done
  local opts=(-qq -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$apt/parts" -o "Dir::State::Lists=$apt/lists" -o "APT::Sandbox::User=root")
  apt-get "${opts[@]}" update >/dev/null
  (cd "$cache/sqlite" && apt-get "${opts[@]}" --download-only source sqlite3 >/dev/null && tar xf "$(ls sqlite3_*.orig.tar.*)" --strip-components=1)
}

build_sqlite() {
  [ -x "$cache/bin/threadtest3" ] && return
  mkdir -p "$cache/bin"
  cd "$cache/sqlite"
  [ -e sqlite3.c ] || { command -v tclsh >/dev/null || apt-get install -y -qq --no-install-recommends tcl >/dev/null; ./configure >/dev/null && make sqlite3.c >/dev/null; }
  local flags=(-O1 -w -DSQLITE_THREADSAFE=1 -DSQLITE_ENABLE_FTS5 -I.)
  cc "${flags[@]}" -c sqlite3.c -o sqlite3.o
  cc "${flags[@]}" mptest/mptest.c sqlite3.o -o "$cache/bin/mptest" -lm -lpthread -ldl
  printf '%s\n' 'int __wrap_sqlite3_busy_handler(void *d, void *f, void *a) { return 0; }' 'int __wrap_sqlite3_busy_timeout(void *d, int ms) { return 0; }' >nobusy.c
  cc "${flags[@]}" mptest/mptest.c sqlite3.o nobusy.c -Wl,--wrap=sqlite3_busy_handler,--wrap=sqlite3_busy_timeout -o "$cache/bin/mptest-nobusy" -lm -lpthread -ldl
  cc "${flags[@]}" -Isrc test/threadtest3.c src/test_multiplex.c sqlite3.o -o "$cache/bin/threadtest3" -lm -lpthread -ldl
  cd - >/dev/null
}

fetch_fsx() {
  [ -x "$cache/bin/fsx" ] || cargo install -q --root "$cache" fsx
}

fetch_pjdfstest() {
  [ -x "$cache/bin/pjdfstest" ] && return
  cargo install -q --root "$cache" pjdfstest
}

failed=0
say() { printf '%-7s %s\n' "$1" "$2"; [ "$1" = ok ] || failed=1; }

run_mptest() {
  local dir=$1 work=$2 log=$3 program mode test
  for program in mptest mptest-nobusy; do
    for mode in wal delete truncate persist; do
      for test in crash01.test multiwrite01.test config01.test config02.test; do
        case "$test $mode" in config*wal) continue ;; esac
        rm -f "$work"/mp.db*
        if (cd "$cache/sqlite/mptest" && timeout 300 "$cache/bin/$program" "$work/mp.db" "$test" --journalmode "$mode" >"$log" 2>&1) && tail -3 "$log" | grep -q ' 0 errors'; then
          say ok "$dir $program $test $mode: $(grep -o 'Summary:.*' "$log" | tail -1)"
        else
          say FAILED "$dir $program $test $mode: $(grep -iE 'error|locked|Summary' "$log" | tail -2 | tr '\n' ' ')"
        fi
      done
    done
  done
}

run_threadtest3() {
  local dir=$1 work=$2 log=$3
  if (cd "$work" && timeout 3000 "$cache/bin/threadtest3" >"$log" 2>&1) && tail -2 "$log" | grep -q '^0 errors out of '; then
    say ok "$dir threadtest3: $(tail -1 "$log")"
  else
    say FAILED "$dir threadtest3: $(grep -vE '^(Running|.*ok$)' "$log" | tail -4 | tr '\n' ' ')"
  fi
}

run_fsx() {
  local dir=$1 work=$2 log=$3
  if timeout 600 "$cache/bin/fsx" -N 20000 -S 7 "$work/fsx.data" >"$log" 2>&1; then say ok "$dir fsx 20,000 operations"; else say FAILED "$dir fsx: $(tail -2 "$log" | tr '\n' ' ')"; fi
}

# Each case of the suite (or each that is named) with what came of it, in a directory.
pjdfstest_in() {
  local conf
  conf=$(mktemp)
  printf '%s\n' '[features]' 'posix_fallocate = {}' 'rename_ctime = {}' 'utimensat = {}' 'utime_now = {}' '[settings]' 'naptime = 0.02' \
    '[dummy_auth]' 'entries = [["nobody", "nogroup"], ["daemon", "daemon"]]' >"$conf"
  timeout 900 "$cache/bin/pjdfstest" -c "$conf" -s /dev/shm -p "$1" "${@:2}" 2>&1 | sed -nE 's/^([a-z_0-9:]+) +(ok|skipped|FAILED)$/\1 \2/p' | sort
  rm -f "$conf"
}

# Compared with a directory in NATIVE, which is to be of the same kind of file system as what is mounted. One difference is known: `link_count_max` asks the C library how many links a file may have; it
# goes by the type of the file system, knows none for FUSE, and the case is skipped. A case that differs is run once more by itself: cases run side by side, and
# those that run a program they have just written disturb each other (the child that one starts has the other's file open to write for a moment).
run_pjdfstest() {
  local dir=$1 work=$2 log=$3 native case
  native=$(mktemp -d "${NATIVE:-/tmp}/pjdfstest.XXXXXX")
  chmod 755 "$native" "$work"
  diff <(pjdfstest_in "$native") <(pjdfstest_in "$work" | tee "$log") | grep '^[<>]' | grep -v ' link::link_count_max ' >"$log.first" || true
  : >"$log.diff"
  for case in $(awk '{ print $2 }' "$log.first" | sort -u); do
    diff <(pjdfstest_in "$native" "$case") <(pjdfstest_in "$work" "$case") >>"$log.diff" || true
  done
  if [ -s "$log" ] && [ ! -s "$log.diff" ]; then
    say ok "$dir pjdfstest: $(grep -c ' ok$' "$log") of $(wc -l <"$log") cases ok, $(grep -c ' skipped$' "$log") skipped, the others as in $native"
  else
    say FAILED "$dir pjdfstest (< native, > here): $(tr '\n' ' ' <"$log.diff")"
  fi
  rm -rf "$native" "$log.diff" "$log.first"
}

[ $# -gt 0 ] || { sed -n '2,13p' "$0"; exit 2; }
programs=${PROGRAMS:-mptest threadtest3 fsx pjdfstest}
case "$programs" in *mptest* | *threadtest3*) fetch_sqlite && build_sqlite ;; esac
case "$programs" in *fsx*) fetch_fsx ;; esac
case "$programs" in *pjdfstest*) fetch_pjdfstest ;; esac
for dir in "$@"; do
  dir=$(cd "$dir" && pwd)
  for program in $programs; do
    work=$(mktemp -d "$dir/third-party.XXXXXX")
    log=$(mktemp)
    "run_$program" "$dir" "$work" "$log"
    rm -rf "$work" "$log"
  done
done
exit $failed

#!/usr/bin/env bash
# Third-party programs on a mount (or on any directory): SQLite's mptest and threadtest3 from Debian's source package sqlite3, and fsx from the crate
# of that name. Fetched by package name and built in a cache outside the repository; nothing of theirs is kept here.
#
#   scripts/third-party.sh DIR…        # each is a directory to test in
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

failed=0
say() { printf '%-7s %s\n' "$1" "$2"; [ "$1" = ok ] || failed=1; }

run_in() {
  local dir=$1 work log test mode program
  work=$(mktemp -d "$dir/third-party.XXXXXX")
  log=$(mktemp)
  for program in mptest mptest-nobusy; do
    for mode in wal delete truncate persist; do
      [ "$program" = mptest ] || [ "$mode" = wal ] || [ "$mode" = delete ] || continue
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
  if (cd "$work" && timeout 900 "$cache/bin/threadtest3" >"$log" 2>&1) && tail -2 "$log" | grep -q '^0 errors out of '; then
    say ok "$dir threadtest3"
  else
    say FAILED "$dir threadtest3: $(grep -vE '^(Running|.*ok$)' "$log" | tail -4 | tr '\n' ' ')"
  fi
  if timeout 600 "$cache/bin/fsx" -N 20000 -S 7 "$work/fsx.data" >"$log" 2>&1; then say ok "$dir fsx 20,000 operations"; else say FAILED "$dir fsx: $(tail -2 "$log" | tr '\n' ' ')"; fi
  rm -rf "$work" "$log"
}

[ $# -gt 0 ] || { sed -n '2,8p' "$0"; exit 2; }
fetch_sqlite
build_sqlite
fetch_fsx
for dir in "$@"; do run_in "$(cd "$dir" && pwd)"; done
exit $failed

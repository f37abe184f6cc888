#!/usr/bin/env bash
# The main job, shown: snapshot, ruin, restore, boot fresh. Leaves the server up. `demo.sh stop` takes it down.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/target/release
data=${DATA:-$PWD/.demo}
port=${PORT:-7878}
mkdir -p "$data"
data=$(realpath "$data")
run=/run/hoody-state/demo-$(printf %s "$data" | sha256sum | cut -c1-8)
log=$data/server.log
export HOODY_STATE_SOCKET=$run/api.sock

serving() { [ -S "$HOODY_STATE_SOCKET" ] && curl -sf --unix-socket "$HOODY_STATE_SOCKET" http://localhost/readyz >/dev/null 2>&1; }

if [ "${1:-}" = stop ]; then
  again="make run"
  [ "$data" = "$PWD/.demo" ] || again="make run DATA=$data"
  if [ ! -e "$data/pool.img" ]; then
    rmdir "$data" 2>/dev/null || true
    echo "There is no demo in $data. For another directory: make stop DATA=…"
    exit
  fi
  if [ -f "$data/server.pid" ] && serving; then
    pid=$(cat "$data/server.pid")
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq 150); do [ -e "/proc/$pid" ] || break; sleep 0.1; done
  fi
  rm -f "$data/server.pid"
  "$bin/hoody-state-http" unmount --data "$data" --run "$run"
  echo "The server has ended and its pool is unmounted. The data are in $data; $again uses them again."
  exit
fi

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold= plain=; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
h() { "$bin/hoody-state" "$@"; }
# Runs a command, lets it print, and says how long it took.
timed() { local a b; a=$(date +%s%N); "$@"; b=$(date +%s%N); printf '    took %d.%d ms\n' $(((b - a) / 1000000)) $(((b - a) / 100000 % 10)); }
sum='find / -xdev \( -type f -o -type l \) ! -path "/proc/*" ! -path "/sys/*" ! -path "/dev/*" ! -path "/tmp/*" -print0 | sort -z | xargs -0 -n 200 ls -ln | sha256sum; find / -xdev -type f ! -path "/proc/*" ! -path "/sys/*" ! -path "/dev/*" ! -path "/tmp/*" -print0 | sort -z | xargs -0 sha256sum | sha256sum'

if ! serving; then
  say "Starting a server on a loop-image pool in $data"
  setsid "$bin/hoody-state-http" serve --data "$data" --run "$run" --listen "127.0.0.1:$port" --pool-size "${POOL_SIZE:-20G}" >"$data/server.out" 2>"$log" </dev/null &
  echo $! >"$data/server.pid"
  for _ in $(seq 100); do serving && break; [ -e "/proc/$(cat "$data/server.pid")" ] || break; sleep 0.1; done
  serving || { echo "the server did not start:" >&2; tail -n 5 "$log" >&2; exit 1; }
fi
cat "$data/server.out"

if ! h image show busybox >/dev/null 2>&1; then
  say "Importing a root file system: this machine's busybox, some 2 MiB"
  "$bin/hoody-state-http" demo-image >"$data/busybox.tar"
  timed h image import busybox "$data/busybox.tar"
fi
h project show web >/dev/null 2>&1 || h project create web >/dev/null
# A container of an earlier run is not touched.
name=dev
n=2
while h container show "$name" >/dev/null 2>&1; do name=dev-$n n=$((n + 1)); done

say "A container is made and boots"
timed h container create "$name" --project web --image busybox
h container exec "$name" -- sh -c 'mkdir -p /hoody/storage && echo "three weeks of work" >/hoody/storage/notes'
before=$(h container exec "$name" -- sh -c "$sum")

say "A snapshot before the agent runs"
timed h snapshot create "$name" pre-auth-refactor

say "The agent ruins the system"
echo '    $ rm -rf /usr/* /etc/* /hoody/storage/notes; echo "all done!" >/REPORT'
h container exec "$name" -- sh -c 'rm -rf /usr/* /etc/* /hoody/storage/notes; echo "all done!" >/REPORT; for f in /etc/* /usr/*; do [ ! -e "$f" ] || exit 1; done'
echo "    nothing is left in /etc and /usr"

say "One PATCH brings it back, and the container boots fresh"
id=$(h -o json container show "$name" | sed -n 's/^ *"id": "\([0-9a-f]\{24\}\)".*/\1/p' | head -n 1)
timed curl -sf --unix-socket "$HOODY_STATE_SOCKET" -X PATCH "http://localhost/api/v1/containers/$id/snapshots/pre-auth-refactor" -o "$data/restored.json"
sed -n 's/.*"data":{[^}]*"message":"\([^"]*\)".*/    \1/p' "$data/restored.json"
echo
after=$(h container exec "$name" -- sh -c "$sum")
if [ "$before" = "$after" ]; then echo "    every byte, owner and mode is as before: $(echo "$after" | cut -c1-16 | tail -n 1)…"; else echo "    NOT as before" >&2; exit 1; fi
h container exec "$name" -- cat /hoody/storage/notes | sed 's/^/    /'

say "The ruined state is still there, for forensics"
h snapshot list "$name"
undo=$(h -o json snapshot list "$name" | sed -n 's/.*"name": "\(undo-[^"]*\)".*/\1/p' | head -n 1)
echo "    $run/pool/containers/$id/snapshots/$undo/REPORT says: $(cat "$run/pool/containers/$id/snapshots/$undo/REPORT")"

say "check: catalog, pool, cgroups and processes agree"
"$bin/hoody-state-http" check --data "$data" --run "$run" && echo "    nothing found"

"$bin/hoody-state-http" token revoke demo --data "$data" --run "$run" >/dev/null 2>&1 || true
token=$("$bin/hoody-state-http" token create --name demo --data "$data" --run "$run")
url=$(sed -n 's/^listening on \([^ ]*\).*/\1/p' "$data/server.out" | tail -n 1)
say "The server is running. Try:"
cat <<END
    export HOODY_TOKEN=$token
    curl -s -H "Authorization: Bearer \$HOODY_TOKEN" $url/api/v1/containers/$id
    curl -s -H "Authorization: Bearer \$HOODY_TOKEN" -X POST $url/api/v1/containers/$id/snapshots -H 'Content-Type: application/json' -d '{"alias":"mine"}'
    curl -s -H "Authorization: Bearer \$HOODY_TOKEN" -X PATCH $url/api/v1/containers/$id/snapshots/mine
    curl -s -H "Authorization: Bearer \$HOODY_TOKEN" -X POST $url/api/v1/containers/$id/undo
    $bin/hoody-state --url $url --token \$HOODY_TOKEN container list
    make stop$([ "$data" = "$PWD/.demo" ] || echo " DATA=$data")          # ends the server and unmounts its pool
END

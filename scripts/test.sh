#!/usr/bin/env bash
# Every test. Those that need root, BTRFS or a container runtime fail, and say what is missing, where it is.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/watched.py 480 cargo test --locked --workspace --no-fail-fast
# SQLite on a mount: every pattern and journal mode, threads, kills.
scripts/sqlite-matrix.sh
# The documents, as they are typed.
scripts/documents.sh

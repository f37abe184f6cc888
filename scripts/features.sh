#!/usr/bin/env bash
# The library with each feature alone: it compiles without a warning. And no build but that of the tests has the crash hooks.
set -euo pipefail
cd "$(dirname "$0")/.."
for features in "" btrfs oci locks transfer btrfs,oci,locks,transfer,openapi,conformance; do
  echo "hoody-state with the features \"$features\""
  cargo clippy --quiet --locked -p hoody-state --no-default-features --features "$features" -- -D warnings
done
# Alone, so that it has no feature that another crate of the workspace asks for.
cargo clippy --quiet --locked -p hoody-state-fuse -- -D warnings
if cargo tree --locked --workspace --edges normal,build,features --invert hoody-state | grep -q crash-hooks; then
  echo "a build without tests has the feature crash-hooks" >&2
  exit 1
fi

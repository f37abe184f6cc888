#!/usr/bin/env bash
# Lists Rust files over 500 lines and functions over 80 lines. Ends with 1 if there is any.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files '*.rs' | xargs awk '
    FNR == 1 { inside = 0 }
    # rustfmt closes a function with a brace at the indentation of its first line.
    !inside && /^ *(pub(\([a-z: ]+\))? )?(const |async |unsafe |extern "C" )*fn [a-z_0-9]+/ {
        match($0, /^ */); indent = RLENGTH; start = FNR; inside = 1
        name = $0; sub(/.*fn /, "", name); sub(/[^a-z_0-9].*/, "", name)
        if ($0 ~ /;$/ || $0 ~ /}$/) inside = 0
    }
    inside && FNR > start {
        match($0, /^ */)
        if (RLENGTH == indent && $0 ~ /^ *}/) {
            if (FNR - start + 1 > 80) { print FILENAME ":" start ": fn " name " has " FNR - start + 1 " lines"; found = 1 }
            inside = 0
        } else if (RLENGTH == indent && $0 ~ /;$/) inside = 0
    }
    { lines[FILENAME] = FNR }
    END {
        for (f in lines) if (lines[f] > 500) { print f ": " lines[f] " lines"; found = 1 }
        exit found
    }'

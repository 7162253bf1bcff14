#!/usr/bin/env bash
# Random readers, warms, cancels and network faults against one daemon, in phases of a new repository each; after each
# nothing may be left of them, and memory may not grow.
#   soak.sh [MINUTES]   of load; checks come on top (default 10)
# Progress on stderr, one line of JSON at the end on stdout; exit code 1 with evidence when anything was wrong.
# SEED=N repeats the choices of an earlier run (not its timing). LARDER=PROGRAM for another build.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
larder=${LARDER:-$top/target/release/larder}
[ -x "$larder" ] || { echo "$larder is not there: cargo build --release --locked" >&2; exit 1; }
exec python3 "$top/scripts/soak.py" --larder "$larder" --minutes "${1:-10}" ${SEED:+--seed "$SEED"}

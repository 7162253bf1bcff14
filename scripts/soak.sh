#!/usr/bin/env bash
# Random readers, warms, cancels and network faults against one daemon a phase; then nothing may be left of them.
#   soak.sh [MINUTES] [CORPUS]   MINUTES: of load, checks come on top (default 10)
#                                CORPUS: a bare repository with branches main and next
#                                        (default: /tmp/corpus/medium.git if it is there, else one made for this)
# Progress on stderr, one line of JSON at the end on stdout; exit code 1 with evidence when anything was wrong.
# SEED=N repeats the choices of an earlier run (not its timing). LARDER=PROGRAM for another build.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
larder=${LARDER:-$top/target/release/larder}
[ -x "$larder" ] || { echo "$larder is not there: cargo build --release --locked" >&2; exit 1; }
exec python3 "$top/scripts/soak.py" --larder "$larder" --minutes "${1:-10}" --corpus "${2:-/tmp/corpus/medium.git}" ${SEED:+--seed "$SEED"}

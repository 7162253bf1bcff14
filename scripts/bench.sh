#!/usr/bin/env bash
# Measures every figure of docs/performance.md: ratios against an ext4 checkout and git, in the same run.
# What waits for a remote is in bench_hydrate.py (groups hydrate, prefetch, limits), what writes in bench_write.py (git,
# write, build, switch), the rest in bench.py.
#   bench.sh [CORPUS_DIR] [NAME...]   CORPUS_DIR: where corpus.sh keeps or makes linux.git (default /tmp/corpus)
#                                     NAME: only these (bench.sh DIR list prints them)
# A markdown table on stdout, progress on stderr. Needs ../shared/bench (corpus.sh, netproxy.py); SHARED=DIR elsewhere.
# "Cold" is a fresh mount of a hydrated store: no cache of the kernel's is dropped. Everything made is removed at the end.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
corpus=${1:-/tmp/corpus}
[ $# -gt 0 ] && shift
shared=${SHARED:-$top/../shared}
larder=${LARDER:-$top/target/release/larder}
[ -x "$larder" ] || { echo "$larder is not there: cargo build --release --locked" >&2; exit 1; }
if [ ! -d "$corpus/linux.git" ]; then
  [ -x "$shared/bench/corpus.sh" ] || { echo "no $corpus/linux.git, and no $shared/bench/corpus.sh to make it" >&2; exit 1; }
  "$shared/bench/corpus.sh" linux "$corpus" >&2
fi
exec python3 "$top/scripts/bench_write.py" --corpus "$corpus" --larder "$larder" --netproxy "$shared/bench/netproxy.py" --only "$@"

#!/usr/bin/env bash
# Runs pjdfstest and fsx in a mount, or with --plain in a plain directory, which is the baseline.
#   posix.sh [--plain] [pjdfstest] [fsx]     both when neither is named
# pjdfstest needs root, since it changes users. Each of its failures must be in tests/pjdfstest-expected.txt with a
# reason, and each test listed there must fail: the list says what is so. fsx makes FSX_OPERATIONS (100000) random
# operations on a file for each of FSX_SEEDS ("1 2 3 4").
# LARDER=program to test (default: target/release/larder). Tools are installed into target/tools. Nothing else is left.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
larder=${LARDER:-$top/target/release/larder}
tools=$top/target/tools
expected=$top/tests/pjdfstest-expected.txt
seeds=${FSX_SEEDS:-1 2 3 4}
operations=${FSX_OPERATIONS:-100000}
most_expected=9

plain='' wanted=()
for word in "$@"; do
  case $word in
  --plain) plain=yes ;;
  pjdfstest | fsx) wanted+=("$word") ;;
  *) sed -n '2,7p' "$0" >&2; exit 2 ;;
  esac
done
[ ${#wanted[@]} -gt 0 ] || wanted=(pjdfstest fsx)

if [ -z "$plain" ] && [ ! -x "$larder" ]; then
  echo "$larder is not there: cargo build --release --locked" >&2
  exit 1
fi
"$top/scripts/install-deps.sh" build demo
for tool in "${wanted[@]}"; do
  [ "$tool" = fsx ] || "$top/scripts/install-deps.sh" posix
  [ -x "$tools/bin/$tool" ] || cargo install --quiet --locked --root "$tools" --target-dir "$tools/build" "$tool"
done

work=$(mktemp -d "${TMPDIR:-/tmp}/larder-posix.XXXXXX")
# The test users must get to the mount.
chmod 755 "$work"
place=$work/place
export LARDER_HOME=$work/home GIT_CONFIG_GLOBAL=/dev/null
clean_up() {
  trap - EXIT INT TERM HUP
  cd /
  if [ -z "$plain" ]; then
    timeout 20 "$larder" unmount "$place" --force >/dev/null 2>&1 || true
    timeout 20 "$larder" shutdown >/dev/null 2>&1 || true
    if mountpoint -q "$place" 2>/dev/null; then
      fusermount3 -uz "$place" 2>/dev/null || umount -l "$place" 2>/dev/null || true
    fi
  fi
  # Only this file system: if a mount could not be ended, what it shows is not ours to delete.
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [ -n "$plain" ]; then
  mkdir "$place"
else
  git init -q -b main "$work/source"
  for setting in uploadpack.allowFilter uploadpack.allowAnySHA1InWant; do git -C "$work/source" config "$setting" true; done
  echo file >"$work/source/file"
  git -C "$work/source" add file
  git -C "$work/source" -c user.name=t -c user.email=t@example.org commit -q -m first
  "$larder" mount "$work/source" "$place" >/dev/null
fi
kind=$(stat -f -c %T "$place")

run_pjdfstest() {
  cat >"$work/pjdfstest.toml" <<'TOML'
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["larder-test", "larder-test"]]
TOML
  mkdir "$place/pjdfstest" "$work/other"
  # Debian's name for the group of nobody is not everybody's.
  getent group nogroup >/dev/null || sed -i 's/"nogroup"/"nobody"/' "$work/pjdfstest.toml"
  # Its exit code says whether anything failed; what failed is judged here.
  NO_COLOR=1 "$tools/bin/pjdfstest" -c "$work/pjdfstest.toml" -p "$place/pjdfstest" >"$work/report" 2>"$work/complaints" || true
  judge "$work/report"
}

# Compares the failures in a report with the list.
judge() {
  if ! tail -n 1 "$1" | grep -q '^Summary: .* total$'; then
    echo "pjdfstest did not come to its end:" >&2
    tail -n 20 "$1" "$work/complaints" >&2
    return 1
  fi
  sed -nE 's/^([a-z0-9_:]+) +FAILED$/\1/p' "$1" | sort >"$work/failed"
  local count listed
  count=$(tail -n 1 "$1" | sed -E 's/^Summary: ([0-9]+) failed.*/\1/')
  if [ "$count" -ne "$(wc -l <"$work/failed")" ]; then
    echo "$count tests failed, and these could be read from the report:" >&2
    cat "$work/failed" >&2
    return 1
  fi
  sed -nE 's/^([a-z0-9_:]+)[[:space:]]+[^[:space:]].*$/\1/p' "$expected" | sort >"$work/listed"
  [ -z "$plain" ] || : >"$work/listed"
  listed=$(wc -l <"$work/listed")
  echo "pjdfstest on $kind: $(tail -n 1 "$1"); $listed expected to fail"
  if grep -vE '^(#|$)' "$expected" | grep -qvE '^[a-z0-9_:]+[[:space:]]+[^[:space:]]'; then
    echo "$expected: a line without a reason" >&2
    return 1
  fi
  local new gone
  new=$(comm -23 "$work/failed" "$work/listed")
  gone=$(comm -13 "$work/failed" "$work/listed")
  if [ -n "$new" ]; then
    echo "these fail, and are not expected to:" >&2
    # A failure's lines follow its name, indented.
    awk 'NR == FNR { new[$1]; next } /^[^ \t]/ { show = $1 in new } show' <(echo "$new") "$1" >&2
    return 1
  fi
  if [ -n "$gone" ]; then
    printf 'these are expected to fail and do not; take them off %s:\n%s\n' "$expected" "$gone" >&2
    return 1
  fi
  if [ "$listed" -gt $most_expected ]; then
    echo "$listed failures are expected; at most $most_expected may be" >&2
    return 1
  fi
}

run_fsx() {
  cat >"$work/fsx.toml" <<'TOML'
flen = 1048576
[opsize]
max = 65536
min = 0
align = 1
[weights]
close_open = 5
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 10
fsync = 1
fdatasync = 1
posix_fallocate = 1
punch_hole = 1
sendfile = 1
posix_fadvise = 1
copy_file_range = 1
TOML
  local seed
  mkdir "$work/artifacts"
  for seed in $seeds; do
    if ! "$tools/bin/fsx" -q -f "$work/fsx.toml" -S "$seed" -N "$operations" -P "$work/artifacts" "$place/fsx-$seed" >"$work/report" 2>&1; then
      echo "fsx on $kind, seed $seed:" >&2
      tail -n 30 "$work/report" >&2
      return 1
    fi
    echo "fsx on $kind: seed $seed, $operations operations: clean"
  done
}

for tool in "${wanted[@]}"; do "run_$tool"; done

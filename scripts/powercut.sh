#!/usr/bin/env bash
# Cuts the power of the disk that LARDER_HOME is on, at random instants of publishing, writing and collecting.
#   powercut.sh [ROUNDS]     default 20; SEED=N repeats a run
# The disk is an ext4 image on a loop device, shut down without flushing its journal (xfs_io -x -c shutdown), as if the
# machine had lost power. After each cut the store must open, the mount show what was synced, and every file of the
# repository be what Git has. Needs root, /dev/fuse, loop devices and xfsprogs. LARDER=program to test (default:
# target/release/larder). Everything made is removed at the end.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
larder=${LARDER:-$top/target/release/larder}
rounds=${1:-20}
RANDOM=${SEED:-$$}
echo "seed ${SEED:-$$}"
[ "$(id -u)" -eq 0 ] || { echo "loop devices need root" >&2; exit 1; }
[ -x "$larder" ] || { echo "$larder is not there: cargo build --release --locked" >&2; exit 1; }
"$top/scripts/install-deps.sh" demo powercut

work=$(mktemp -d "${TMPDIR:-/tmp}/larder-powercut-XXXXXX")
disk=$work/disk place=$work/mount
export LARDER_HOME=$disk/home XDG_CONFIG_HOME=$work GIT_CONFIG_GLOBAL=/dev/null
export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org
busy=
daemon() { cat "$work/pid" 2>/dev/null || true; }
kill_daemon() {
  local pid
  pid=$(daemon)
  [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null || true
  rm -f "$work/pid"
  umount -l "$place" 2>/dev/null || true
}
clean_up() {
  trap - EXIT INT TERM
  [ -n "$busy" ] && kill "$busy" 2>/dev/null || true
  kill_daemon
  umount "$disk" 2>/dev/null || umount -l "$disk" 2>/dev/null || true
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Notes the daemon's process, so that nothing else is ever killed.
note() { "$larder" --json doctor >/dev/null 2>&1 || true; pgrep -f "^$larder daemon" | while read -r pid; do
  grep -qz "^LARDER_HOME=$LARDER_HOME$" "/proc/$pid/environ" 2>/dev/null && echo "$pid"; done | head -1 >"$work/pid"; }

mkdir -p "$disk" "$work/larder" "$work/source"
printf '[git]\nhistory = "off"\n[gc]\ninterval = "0s"\n[cache]\nmin_free = "8MiB"\n' >"$work/larder/config.toml"
cd "$work/source"
git init -q -b main .
for branch in main next; do
  [ "$branch" = main ] || git switch -q -c "$branch"
  for number in $(seq 200); do
    mkdir -p "d$((number % 10))"
    head -c $((number * 50)) /dev/zero | openssl enc -aes-128-ctr -nosalt -pass "pass:$branch$number" 2>/dev/null >"d$((number % 10))/f$number"
  done
  git add -A
  git commit -q -m "$branch"
  git archive "$branch" | { mkdir "$work/$branch" && tar x -C "$work/$branch"; }
done
git switch -q main
cd "$work"
truncate -s 512M "$work/image"
mkfs.ext4 -q "$work/image"
mount -o loop "$work/image" "$disk"
"$larder" --quiet mount "$work/source" "$place"
note

# What goes on when the power goes: switching, warming, writing with fsync, collecting. It ends by being killed.
work_on() {
  local number=0
  while :; do
    number=$((number + 1))
    "$larder" --quiet switch "$place" "$([ $((number % 2)) -eq 0 ] && echo main || echo next)" || sleep 0.05
    "$larder" --quiet warm "$place" || true
    if printf '%s\n' "$number" | dd of="$place/synced-$number" conv=fsync status=none; then
      sync "$place" && echo "$number" >>"$work/synced"
    fi
    "$larder" --quiet gc --generations $((number % 3)) --max-age 0s >/dev/null || true
  done
}

for round in $(seq "$rounds"); do
  : >"$work/synced"
  rm -f "$place"/synced-* 2>/dev/null || true
  sync "$place"
  (work_on >/dev/null 2>&1) &
  busy=$!
  sleep "$((RANDOM % 3)).$((RANDOM % 90 + 10))"
  xfs_io -x -c shutdown "$disk"
  cp "$work/synced" "$work/promised"
  kill_daemon
  kill "$busy" 2>/dev/null || true
  wait "$busy" 2>/dev/null || true
  busy=
  # Whoever was in the middle of something lets go a moment later.
  for _ in $(seq 100); do umount "$disk" 2>/dev/null && break; sleep 0.1; done
  mountpoint -q "$disk" && { echo "round $round: the disk stays in use" >&2; exit 1; }
  mount -o loop "$work/image" "$disk"
  # The first command starts a daemon, which mounts again what was mounted.
  timeout 60 "$larder" --quiet warm "$place"
  note
  shown=$("$larder" --json status "$place" | sed -n 's/.*"commit": *"\([0-9a-f]*\)".*/\1/p' | head -1)
  expected=$work/$(git -C "$work/source" name-rev --name-only --refs='refs/heads/*' "$shown")
  diff -r --exclude=.git --exclude='synced-*' "$expected" "$place" || { echo "round $round: files differ" >&2; exit 1; }
  while read -r number; do
    [ "$(cat "$place/synced-$number")" = "$number" ] || { echo "round $round: synced-$number was lost" >&2; exit 1; }
  done <"$work/promised"
  echo "round $round: $(wc -l <"$work/promised") synced files, all there; $("$larder" generations "$place" | tail -n +2 | wc -l) generations"
done
echo "$rounds cuts, nothing lost"

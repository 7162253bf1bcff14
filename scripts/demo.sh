#!/usr/bin/env bash
# Mounts a repository with a larder of its own, looks around in it, and leaves nothing behind.
#   demo.sh [REPO]     anything `git clone` takes; default: this checkout
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repo=${1:-$top}
# A path that a user typed is relative to where the user stands.
case $repo in *:*) ;; *) if [ -e "$repo" ]; then repo=$(realpath "$repo"); fi ;; esac
larder=${LARDER:-$top/target/release/larder}
if [ ! -x "$larder" ]; then
  echo "$larder is not there: run \`make demo\`, or cargo build --release first" >&2
  exit 1
fi
# Whoever runs this runs the checkout's code already; in a container it often belongs to another user.
if [ "$repo" = "$top" ]; then
  export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/larder-demo.XXXXXX")
mount=$work/mount
export LARDER_HOME=$work/home
clean_up() {
  trap - EXIT INT TERM HUP
  cd /
  timeout 20 "$larder" unmount "$mount" --force >/dev/null 2>&1 || true
  timeout 20 "$larder" shutdown >/dev/null 2>&1 || true
  if mountpoint -q "$mount" 2>/dev/null; then
    fusermount3 -uz "$mount" 2>/dev/null || umount -l "$mount" 2>/dev/null || true
  fi
  # Only this file system: if a mount could not be ended, what it shows is not ours to delete.
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
# Shows a command as one would type it, and runs it. Long output is cut.
step() {
  printf '\n%s$ %s%s\n' "$bold" "$1" "$plain"
  eval "$1"
}
shorten() { awk -v most="$1" 'NR <= most; NR > most { more++ } END { if (more) printf "… and %d more lines\n", more }'; }
PATH=$(dirname "$larder"):$PATH

step "larder mount '$repo' '$mount'"
cd "$mount"
step "ls | shorten 12"
# The first small file with text in it, README first.
file=$( (ls README* 2>/dev/null; find . -path ./.git -prune -o -type f -print | head -200 | sort) | head -1) || true # a pipe closed early
file=${file#./}
if [ -n "$file" ]; then
  step "head -c 400 $(printf %q "$file") | shorten 5"
fi
step "git status --short --branch | shorten 5"
step "git log -3 --format='%h %ad %s' --date=short"
step "larder status '$mount'"
cd "$work"
step "larder unmount '$mount'"
step "larder shutdown"
printf '\nNothing is left of this: it ran with a LARDER_HOME of its own in %s.\n' "$work"

#!/usr/bin/env bash
# Installs what a purpose needs and this machine lacks; never anything that is there.
#   install-deps.sh PURPOSE...     build: a C compiler, cargo   demo: git, fusermount3, certificates
#                                  test: python3, openssl, tmux, chromium and a font
#                                  bench: python3
#                                  lint: rustfmt and clippy     posix: libacl's headers, a user to test as (root)
#                                  powercut: xfs_io, mkfs.ext4
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }

# A minimal Python has no http.server.
need_python() { python3 -c 'import asyncio, http.server, ssl' 2>/dev/null || missing+=(python3); }

for purpose in "$@"; do
  case $purpose in
  build)
    need cc gcc
    # gcc alone leaves out the C library's headers.
    [ -e /usr/include/stdlib.h ] || ! command -v apt-get >/dev/null 2>&1 || missing+=(libc6-dev)
    command -v cargo >/dev/null 2>&1 || { echo "cargo is missing: install Rust 1.95 or newer (https://rustup.rs), then run this again" >&2; exit 1; }
    ;;
  demo)
    need git git
    need fusermount3 fuse3
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -d /etc/pki/tls ] || missing+=(ca-certificates)
    ;;
  test)
    need_python
    need openssl openssl
    need tmux tmux
    need chromium chromium
    # Without one the browser draws no letters.
    [ -d /usr/share/fonts/truetype ] || missing+=(fonts-dejavu-core)
    ;;
  bench)
    need_python
    ;;
  posix)
    [ -e /usr/include/sys/acl.h ] || missing+=(libacl1-dev)
    if ! getent passwd larder-test >/dev/null; then
      [ "$(id -u)" -eq 0 ] || { echo "pjdfstest changes users: run this as root" >&2; exit 1; }
      useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin larder-test
    fi
    ;;
  powercut)
    need xfs_io xfsprogs
    need mkfs.ext4 e2fsprogs
    ;;
  lint)
    for tool in fmt clippy; do
      cargo "$tool" --version >/dev/null 2>&1 && continue
      command -v rustup >/dev/null 2>&1 || { echo "cargo $tool is missing: install the rustfmt and clippy components" >&2; exit 1; }
      rustup component add rustfmt clippy
    done
    ;;
  *)
    sed -n '2,7p' "$0" >&2
    exit 2
    ;;
  esac
done

[ ${#missing[@]} -eq 0 ] && exit 0
mapfile -t packages < <(printf '%s\n' "${missing[@]}" | sort -u)

if ! command -v apt-get >/dev/null 2>&1; then
  echo "missing, and no apt-get to install it with: ${packages[*]} (these are Debian's names)" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 || { echo "missing: ${packages[*]}; run as root: apt-get install ${packages[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null >/dev/null

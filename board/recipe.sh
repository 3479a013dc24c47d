# Sourced by board/build and hub/package, in the root of the tree: what a target's packages are built with.
#
#   recipe TARGET        sets arch, compiler, linker, run and flags; says what has to be installed
#   prepare TARGET       installs it, and exports the environment of a reproducible build
#   cargo_deb ...        runs cargo-deb, whose version is pinned; installs it into target/tools
#
# The script that sources this has `set -euo pipefail`, and its own name in $me.
# shellcheck shell=bash

CARGO_DEB=3.8.0

fail() { echo "${me:?}: $*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "needs root once, to install packages: $*"
    fi
}

# need FILE PACKAGE: a file or command, and the Debian package that contains it.
missing=()
need() { [ -e "$1" ] || command -v "$1" >/dev/null || missing+=("$2"); }
install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=600 "${missing[@]}" >/dev/null
    missing=()
}

# For each target: Debian's architecture, the C compiler (for ring, the cryptography), the linker, and
# the emulator for its binaries.
# shellcheck disable=SC2034 # for the script that sources this
recipe() {
    flags=
    run=
    case $1 in
    x86_64-unknown-linux-gnu) arch=amd64 compiler=cc linker=cc ;;
    # Static: Rust contains the linker and the C library. Of the C compiler it takes headers alone:
    # ring's code is freestanding.
    x86_64-unknown-linux-musl)
        arch=amd64 compiler=cc linker=rust-lld
        flags="-Clink-arg=board/no-unwind.ld -Clink-arg=--no-eh-frame-hdr"
        ;;
    aarch64-unknown-linux-musl)
        arch=arm64 compiler=aarch64-linux-gnu-gcc linker=rust-lld run=qemu-aarch64-static
        flags="-Clink-arg=board/no-unwind.ld -Clink-arg=--no-eh-frame-hdr"
        need $compiler gcc-aarch64-linux-gnu
        need /usr/aarch64-linux-gnu/include/string.h libc6-dev-arm64-cross
        ;;
    armv7-unknown-linux-gnueabihf)
        arch=armhf compiler=arm-linux-gnueabihf-gcc linker=arm-linux-gnueabihf-gcc run="qemu-arm-static -L /usr/arm-linux-gnueabihf"
        need $compiler gcc-arm-linux-gnueabihf
        need /usr/arm-linux-gnueabihf/lib/libc.so libc6-dev-armhf-cross
        ;;
    *) fail "no recipe for the target $1: add its linker and Debian's name for it to board/recipe.sh" ;;
    esac
    # Build scripts are compiled for this machine, with the host's C compiler as linker.
    need cc gcc
}

prepare() {
    install_missing
    if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx "$1"; then
        rustup target add "$1"
    fi
    local home=${CARGO_HOME:-$HOME/.cargo}
    for_target=${1//-/_}
    linker_variable=CARGO_TARGET_${for_target^^}_LINKER
    export "$linker_variable=$linker"
    # For the C code, as below for Rust: no local paths, no unwind tables.
    export "CC_$for_target=$compiler" "CFLAGS_$for_target=-fno-asynchronous-unwind-tables -fno-unwind-tables -ffile-prefix-map=$PWD=/sharelinkd -ffile-prefix-map=$home=/cargo"
    # Goes into the binary, as the floor of the clock for certificates, and into the packages.
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date -d "$(sed -n 's/^ -- .*>  //p' systemd/debian/changelog | head -1)" +%s)}
    export SOURCE_DATE_EPOCH
    # Nothing unwinds (panic = "abort"), so no unwind tables are needed.
    export RUSTFLAGS="$flags -Cforce-unwind-tables=no --remap-path-prefix=$PWD=/sharelinkd --remap-path-prefix=$home=/cargo"
}

cargo_deb() {
    if ! target/tools/bin/cargo-deb --version 2>/dev/null | grep -qw "$CARGO_DEB"; then
        (unset RUSTFLAGS "$linker_variable" "CC_$for_target" "CFLAGS_$for_target" && cargo install cargo-deb --version "$CARGO_DEB" --locked --quiet --root target/tools)
    fi
    target/tools/bin/cargo-deb --no-build --no-strip --locked --quiet "$@"
}

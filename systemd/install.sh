#!/bin/sh
# Installs sharelinkd from this directory on a machine without dpkg; run it again to upgrade. With
# dpkg, use the .deb.
#
#   ./install.sh             install or upgrade; keeps the configuration, and adds a new default as .new
#   ./install.sh --remove    stop and remove it; keeps the configuration
#   ./install.sh --purge     remove it and /etc/sharelinkd, including the secret and the keys
#
# DESTDIR=/tree installs into a directory and starts nothing. Any POSIX shell works, such as
# busybox.
set -eu

root=${DESTDIR:-}
etc=$root/etc/sharelinkd
# The list of installed files, for --remove, and the default that the configuration was copied from,
# for an upgrade.
share=$root/usr/share/sharelinkd
units='sharelinkd.socket sharelinkd.service'
# Who may read the keys in /etc/sharelinkd/tls.
group=sharelinkd-tls

fail() { echo "install.sh: $*" >&2; exit 1; }

runs_systemd() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

install_all() {
    here=$(cd "$(dirname "$0")" && pwd)
    files=$here/files
    [ -x "$files/usr/bin/sharelinkd" ] || fail "the directory files/ is missing: unpack the complete tarball"
    "$files/usr/bin/sharelinkd" --version >/dev/null 2>&1 || [ -n "$root" ] || fail "this binary does not run here: is it the tarball for $(uname -m)?"
    list=$(cd "$files" && find . -type f ! -path './etc/*' ! -path './usr/share/lintian/*' | sed 's/^\.//' | LC_ALL=C sort)
    before=
    [ ! -f "$share/files" ] || before=$(cat "$share/files")
    mkdir -p "$share"
    for path in $list; do
        mkdir -p "$root$(dirname "$path")"
        # Replace the file by a rename: a running program can't be overwritten.
        cp "$files$path" "$root$path.installing"
        mv "$root$path.installing" "$root$path"
    done
    # Remove files of the earlier version that this one doesn't have.
    for path in $before; do
        case "$(printf '\n%s\n' "$list")" in
        *"
$path
"*) ;;
        *) rm -f "$root$path" ;;
        esac
    done
    echo "$list" >"$share/files"
    cp "$here/install.sh" "$share/install.sh"
    configure "$files/etc/sharelinkd/sharelinkd.toml"
    make_group
    make_directory
    if [ -z "$before" ]; then start first; else start again; fi
}

# Overwrites the operator's file only if it is still the installed default.
configure() {
    mkdir -p "$etc"
    if [ ! -f "$etc/sharelinkd.toml" ] || cmp -s "$etc/sharelinkd.toml" "$share/sharelinkd.toml"; then
        cp "$1" "$etc/sharelinkd.toml"
    elif ! cmp -s "$1" "$share/sharelinkd.toml"; then
        cp "$1" "$etc/sharelinkd.toml.new"
        echo "Kept the configuration; the new default is $etc/sharelinkd.toml.new"
    fi
    cp "$1" "$share/sharelinkd.toml"
}

make_group() {
    # In a tree without groups there is no system to run the relay.
    [ -e "$root/etc/group" ] && ! grep -q "^$group:" "$root/etc/group" || return 0
    if command -v groupadd >/dev/null; then
        groupadd --system ${root:+--prefix "$root"} "$group"
    elif [ -z "$root" ] && command -v addgroup >/dev/null; then
        addgroup -S "$group" # busybox
    else
        echo "Make the group $group before the relay starts: its unit has it."
    fi
}

# For certificates and keys: only root writes to it, and only the relay's group reads it.
make_directory() {
    [ ! -d "$etc/tls" ] || return 0
    mkdir -m 750 "$etc/tls"
    id=$(sed -n "s/^$group:[^:]*:\([0-9]*\):.*/\1/p" "$root/etc/group" 2>/dev/null || true)
    [ -z "$id" ] || chgrp "$id" "$etc/tls"
}

start() {
    if runs_systemd; then
        systemctl daemon-reload
        if [ "$1" = first ]; then
            # shellcheck disable=SC2086 # several units
            systemctl enable --quiet --now $units
        elif systemctl is-enabled --quiet sharelinkd.service; then
            # The socket unit keeps the listeners open: no page is refused.
            systemctl restart sharelinkd.service
        else
            systemctl try-restart sharelinkd.service
        fi
    elif command -v systemctl >/dev/null; then
        # shellcheck disable=SC2086
        [ "$1" != first ] || systemctl --root="${root:-/}" enable --quiet $units 2>/dev/null || true
    else
        echo "No systemd found. To start it: sharelinkd run --config /etc/sharelinkd/sharelinkd.toml"
    fi
    if ! grep -qs '^[[:space:]]*addresses[[:space:]]*=' "$etc/sharelinkd.toml"; then
        echo "Still to configure in $etc/sharelinkd.toml: [uplink] addresses and secret_file (docs/install.md)."
        echo "Pages connect to 127.0.0.1:8080; for another address: systemctl edit sharelinkd.socket"
        echo "For TLS without a proxy: [tls], and systemctl enable sharelinkd-tls.socket"
        echo "Then: sharelinkd check --config /etc/sharelinkd/sharelinkd.toml && systemctl restart sharelinkd"
    fi
}

remove() {
    [ -f "$share/files" ] || fail "this script has not installed anything in $root/"
    # shellcheck disable=SC2086
    if runs_systemd; then
        systemctl disable --quiet --now sharelinkd-tls.socket $units
    elif command -v systemctl >/dev/null; then
        systemctl --root="${root:-/}" disable --quiet sharelinkd-tls.socket $units 2>/dev/null || true
    fi
    while read -r path; do
        rm -f "$root$path"
        # Remove directories that are now empty.
        (cd "$root/" && rmdir -p ".$(dirname "$path")" 2>/dev/null) || true
    done <"$share/files"
    rm -rf "$share"
    if runs_systemd; then
        systemctl daemon-reload
        rmdir /run/sharelinkd 2>/dev/null || true
    fi
}

[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "needs root, or DESTDIR"
if [ -z "$root" ] && command -v dpkg-query >/dev/null && dpkg-query -W -f='${Status}' sharelinkd 2>/dev/null | grep -q ' installed'; then
    fail "the Debian package is installed: use apt, or remove it first"
fi
case "${1:-}" in
'') install_all ;;
--remove) remove && echo "Removed; kept $etc (--purge removes it too)." ;;
--purge)
    if [ -f "$share/files" ]; then remove; fi
    rm -rf "$etc"
    echo "Removed, including $etc."
    ;;
*) fail "unknown argument $1: use none, --remove or --purge" ;;
esac

#!/usr/bin/env python3
"""Checks what `board/build` has put into target/packages: the Debian packages, the tarballs and their binaries.

Checks a package's contents, and its installation, upgrade, removal and purge by dpkg in a separate tree; the same for the
tarball's install.sh; lintian. The ARM binaries run under qemu-user, with a part of the conformance suite against each.
Nothing is installed on this machine or needs systemd: the units are tested elsewhere."""
import os
import re
import sys

from tools import (
    DOCUMENTS, PACKAGES, ROOT, SCRIPTS, check, documents_are_there, dpkg, end, fields, files_below, lintian, machine_of, names_no_path_of_this_machine,
    output, owners_and_modes, version,
)

VERSION = version("Cargo.toml")
# Debian's name, board, ELF machine, emulator.
KINDS = [
    ("amd64", "host", 62, []),
    ("arm64", "arm64-gateway", 183, ["qemu-aarch64-static"]),
    ("armhf", "armhf-gateway", 40, ["qemu-arm-static", "-L", "/usr/arm-linux-gnueabihf"]),
]
ARM_BINARY_SIZE_MAX = 2304 * 1024
CONFIGURATION = "etc/sharelinkd/sharelinkd.toml"
CONTENT = {
    "usr/bin/sharelinkd", "usr/lib/sharelinkd/line", "usr/lib/sharelinkd/acme-deploy", "lib/systemd/system/serial-getty@.service.d/sharelinkd.conf", CONFIGURATION,
    "lib/systemd/system/sharelinkd.service", "lib/systemd/system/sharelinkd.socket", "lib/systemd/system/sharelinkd-tls.socket", "lib/systemd/system/sharelinkd-console.socket",
    "lib/systemd/system/sharelinkd.service.d/10-board.conf",
    "usr/share/man/man8/sharelinkd.8.gz", "usr/share/doc/sharelinkd/copyright", "usr/share/doc/sharelinkd/changelog.Debian.gz",
    "usr/share/doc/sharelinkd/changelog.gz", "usr/share/doc/sharelinkd/third-party.txt.gz", "usr/share/lintian/overrides/sharelinkd",
    # Documents for a box without a network, and files for its monitoring.
    *(f"usr/share/doc/sharelinkd/{name}" for name in ("README.md", "alerts.yml", "boards.md", "grafana.json", "openapi.yaml", *DOCUMENTS)),
}
# The essential functions: the uplink, the pages, all four tracks, the console on a line, the
# shutdown.
MAIN_FLOW = "tracks:|handshake: with a secret|uplink_loss: a resubscription|http: GET|console: the line is greeted|console: every command's|process: SIGTERM|process: SIGHUP"
# The group of the service that may read keys; `tests/suite/service.rs` compares it with the unit.
GROUP = "sharelinkd-tls"


def deb(arch):
    return PACKAGES / f"sharelinkd_{VERSION}-1_{arch}.deb"


def content(folder, arch, board, machine, emulator):
    """The contents are complete, owned by root, not writable by others; the binary has the right machine and board."""
    output("dpkg-deb", "-x", deb(arch), folder)
    there = files_below(folder)
    assert CONTENT <= there, f"missing: {sorted(CONTENT - there)}"
    owners_and_modes(deb(arch))
    documents_are_there("sharelinkd", there)
    for program in ("usr/bin/sharelinkd", "usr/lib/sharelinkd/line", "usr/lib/sharelinkd/acme-deploy"):
        assert (folder / program).stat().st_mode & 0o777 == 0o755, program
    binary = folder / "usr/bin/sharelinkd"
    assert machine_of(binary) == machine
    if emulator:
        assert binary.stat().st_size <= ARM_BINARY_SIZE_MAX, f"{binary.stat().st_size} bytes"
    assert f"board {board}" in output(*emulator, binary, "--version")
    assert output(*emulator, binary, "drop-in") == (folder / "lib/systemd/system/sharelinkd.service.d/10-board.conf").read_text()
    # The default configuration is valid there, and says what is left to do.
    output(*emulator, binary, "check", "--config", folder / CONFIGURATION)
    assert output(*emulator, binary, "config") == (folder / CONFIGURATION).read_text()
    names_no_path_of_this_machine(binary)


def control(folder, arch):
    """The fields, the configuration file, the scripts."""
    there = fields(deb(arch))
    assert (there["Package"], there["Version"], there["Architecture"]) == ("sharelinkd", f"{VERSION}-1", arch), there
    assert ("libc6" in there["Depends"]) == (arch != "arm64"), there
    output("dpkg-deb", "-e", deb(arch), folder)
    assert (folder / "conffiles").read_text() == f"/{CONFIGURATION}\n"
    for script in SCRIPTS:
        assert os.access(folder / script, os.X_OK), script
        output("sh", "-n", folder / script)
    shipped = [ROOT / name for name in ("systemd/install.sh", "systemd/line", "systemd/acme-deploy", "board/build", "board/recipe.sh")]
    output("shellcheck", "-x", *(folder / script for script in SCRIPTS), *shipped, cwd=ROOT)


def oldest_library(folder, arch):
    """A dynamic binary needs no newer C library than its package declares."""
    output("dpkg-deb", "-x", deb(arch), folder)
    tool = {"amd64": "readelf", "armhf": "arm-linux-gnueabihf-readelf"}[arch]
    asked = output(tool, "-VW", folder / "usr/bin/sharelinkd")
    newest = max(tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_(\d+\.\d+)", asked))
    depends = output("dpkg-deb", "-f", deb(arch), "Depends")
    said = tuple(map(int, re.search(r"libc6 \(>= (\d+\.\d+)\)", depends).group(1).split(".")))
    assert newest <= said, f"the binary needs {newest}, its package says {said}"


def by_dpkg(folder, arch):
    """Install, configure, upgrade, remove, purge: what each leaves."""
    said = dpkg(folder, "-i", deb(arch))
    assert "[uplink] addresses" in said and "/etc/sharelinkd/secret" in said, said
    wanted = [folder / "etc/systemd/system/sockets.target.wants/sharelinkd.socket", folder / "etc/systemd/system/multi-user.target.wants/sharelinkd.service"]
    assert all(link.is_symlink() for link in wanted), files_below(folder / "etc")
    configuration, secret = folder / CONFIGURATION, folder / "etc/sharelinkd/secret"
    mine = configuration.read_text().replace('#addresses = ["127.0.0.1:7400"]', 'addresses = ["127.0.0.1:7401"]')
    configuration.write_text(mine)
    secret.write_text("of the operator\n")
    wanted[1].unlink()  # disabled by the operator
    said = dpkg(folder, "-i", deb(arch))
    assert configuration.read_text() == mine, "an upgrade changed the configuration"
    assert "Still to configure" not in said, said
    assert not wanted[1].is_symlink(), "an upgrade enabled what the operator had disabled"
    dpkg(folder, "--remove", "sharelinkd")
    left = {path for path in files_below(folder) if not path.startswith("var/lib/")}
    assert {CONFIGURATION, "etc/sharelinkd/secret"} <= left, left
    assert not any("/bin/" in path or path.startswith(("usr/", "lib/")) for path in left), left
    dpkg(folder, "--purge", "sharelinkd")
    left = {path for path in files_below(folder) if not path.startswith("var/lib/dpkg/")}
    assert not left, f"a purge leaves {sorted(left)}"


def keys_for_the_group(folder, arch):
    """In a system, both installers make the group and a directory that only root writes and only the group reads; an
    upgrade leaves its permissions alone, a purge removes it and keeps the group."""
    output("tar", "-C", folder, "-xzf", PACKAGES / f"sharelinkd-{VERSION}-{arch}.tar.gz")
    script = folder / f"sharelinkd-{VERSION}-{arch}" / "install.sh"
    by_tarball = lambda tree, *words: output(script, *words, env={**os.environ, "DESTDIR": str(tree)})  # noqa: E731
    for name, install, purge in [
        ("dpkg", lambda tree: dpkg(tree, "-i", deb(arch)), lambda tree: dpkg(tree, "--purge", "sharelinkd")),
        ("script", by_tarball, lambda tree: by_tarball(tree, "--purge")),
    ]:
        tree = folder / name
        (tree / "etc").mkdir(parents=True)
        (tree / "etc/group").write_text("root:x:0:\nadm:x:4:\n")
        install(tree)
        groups = dict(re.findall(r"^([\w-]+):\w*:(\d+):", (tree / "etc/group").read_text(), re.MULTILINE))
        assert GROUP in groups, (name, groups)
        keys = tree / "etc/sharelinkd/tls"
        found = keys.stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o750, 0, int(groups[GROUP])), (name, oct(found.st_mode), found.st_gid)
        keys.chmod(0o700)
        before = (tree / "etc/group").read_text()
        install(tree)
        assert keys.stat().st_mode & 0o7777 == 0o700 and (tree / "etc/group").read_text() == before, name
        purge(tree)
        assert not keys.exists() and (tree / "etc/group").read_text() == before, name


def by_script(folder, arch):
    """The same for the tarball: install, upgrade over a changed and an unchanged configuration, remove, purge."""
    output("tar", "-C", folder, "-xzf", PACKAGES / f"sharelinkd-{VERSION}-{arch}.tar.gz")
    script, tree = folder / f"sharelinkd-{VERSION}-{arch}" / "install.sh", folder / "tree"
    shipped = script.parent / "files" / CONFIGURATION
    tree.mkdir()
    environment = {**os.environ, "DESTDIR": str(tree)}
    install = lambda *words: output(script, *words, env=environment)  # noqa: E731
    said = install()
    assert "Still to configure" in said and CONTENT - {"usr/share/lintian/overrides/sharelinkd"} <= files_below(tree), said
    links = [path for path in files_below(tree / "etc/systemd") if "wants" in path]
    assert len(links) == 2, links
    (script.parent / "files/usr/share/doc/sharelinkd/protocol.md").unlink()
    shipped.write_text(shipped.read_text() + "# a new default\n")
    install()
    assert (tree / CONFIGURATION).read_text() == shipped.read_text(), "an unchanged configuration must become the new default"
    assert not (tree / "usr/share/doc/sharelinkd/protocol.md").exists(), "files that the new version lacks must be removed"
    mine = "# mine\n" + shipped.read_text().replace("#addresses", "addresses")
    (tree / CONFIGURATION).write_text(mine)
    shipped.write_text(shipped.read_text() + "# a newer default\n")
    said = install()
    assert (tree / CONFIGURATION).read_text() == mine and "Still to configure" not in said, said
    assert (tree / f"{CONFIGURATION}.new").read_text() == shipped.read_text()
    # It removes itself with the installed copy of the script, without the tarball.
    copy = tree / "usr/share/sharelinkd/install.sh"
    output(copy, "--remove", env=environment)
    assert files_below(tree) == {CONFIGURATION, f"{CONFIGURATION}.new"}, files_below(tree)
    install()
    install("--purge")
    assert not files_below(tree), files_below(tree)


def main_flow(folder, arch, emulator):
    output("dpkg-deb", "-x", deb(arch), folder)
    # Two folders deep: the suite writes the transcript of a console session above the daemon's
    # folder.
    start = folder / "usr/bin/emulated"
    start.write_text(f"#!/bin/sh\nexec {' '.join(emulator)} {folder}/usr/bin/sharelinkd \"$@\"\n")
    start.chmod(0o755)
    environment = {**os.environ, "SHARELINKD": str(start), "CONFORMANCE_SLACK": "4"}
    said = output(sys.executable, ROOT / "tests/conformance/run.py", "-k", MAIN_FLOW, "--jobs", "3", env=environment)
    print(said.splitlines()[-1])


for arch, board, machine, emulator in KINDS:
    check(f"{arch}: what is in the package", content, arch, board, machine, emulator)
    check(f"{arch}: its fields and scripts", control, arch)
    check(f"{arch}: lintian finds no errors", lintian, deb(arch))
    check(f"{arch}: installed, upgraded, removed and purged by dpkg", by_dpkg, arch)
    check(f"{arch}: installed, upgraded, removed and purged by install.sh", by_script, arch)
    if os.geteuid() == 0:
        check(f"{arch}: the group that may read keys, and their directory", keys_for_the_group, arch)
    else:
        print(f"SKIPPED {arch}: the group that may read keys: needs root")
    if arch != "arm64":
        check(f"{arch}: the C library that it asks for", oldest_library, arch)
    if emulator:
        check(f"{arch}: the main flow under {emulator[0]}", main_flow, arch, emulator)
end()

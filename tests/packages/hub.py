#!/usr/bin/env python3
"""Checks what `hub/package` has put into target/packages: the hub's Debian packages, and the images of hub and relay.

A package's contents, and its installation, upgrade, removal and purge by dpkg in a separate tree; lintian; the arm64
binary serves under qemu-user. The images as skopeo and umoci read them; each is unpacked, and hub and relay run from their
root file systems in a network namespace of their own, as `hub/compose` says. Nothing is installed on this machine or needs
systemd or a container engine. What needs root is skipped without it.

    tests/packages/hub.py [ARCH...]"""
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import types

from tools import (
    DOCUMENTS, PACKAGES, ROOT, SCRIPTS, check, documents_are_there, dpkg, end, fields, files_below, lintian, machine_of, names_no_path_of_this_machine,
    output, owners_and_modes, version,
)

VERSIONS = {"sharelink-hub": version("hub/Cargo.toml"), "sharelinkd": version("Cargo.toml")}
# Debian's name, ELF machine, emulator.
KINDS = {"amd64": (62, []), "arm64": (183, ["qemu-aarch64-static"])}
CONFIGURATION = "etc/sharelink-hub/hub.toml"
DOC = "usr/share/doc/sharelink-hub"
COMPOSE = ROOT / "hub/compose"
CONTENT = {
    "usr/bin/sharelink-hub", "lib/systemd/system/sharelink-hub.service", CONFIGURATION, "usr/share/man/man8/sharelink-hub.8.gz", "usr/share/lintian/overrides/sharelink-hub",
    *(f"{DOC}/{name}" for name in ("copyright", "changelog.Debian.gz", "changelog.gz", "third-party.txt.gz")),
    *(f"{DOC}/examples/compose/{name}" for name in ("compose.yaml", "hub.toml", "sharelinkd.toml")),
    *(f"{DOC}/{name}" for name in ("README.md", "hub-alerts.yml", "hub-grafana.json", "openapi.yaml", *DOCUMENTS)),
}
# In the image: no account of the host has it.
USER = 65532
# Far beyond what anything here takes.
PATIENCE = 120
# Of hub/compose.
API, PAGES = "http://127.0.0.1:8090", "127.0.0.1:8080"


def deb(arch):
    return PACKAGES / f"sharelink-hub_{VERSIONS['sharelink-hub']}-1_{arch}.deb"


def image_file(program, arch):
    return PACKAGES / f"{program}-{VERSIONS[program]}-{arch}.oci.tar"


def is_static(binary):
    return "INTERP" not in output("readelf", "-lW", binary)


def content(folder, arch, machine, emulator):
    """The contents are complete, owned by root, not writable by others; the binary is static and of the right machine."""
    output("dpkg-deb", "-x", deb(arch), folder)
    there = files_below(folder)
    assert there == CONTENT, f"missing: {sorted(CONTENT - there)}; too many: {sorted(there - CONTENT)}"
    owners_and_modes(deb(arch))
    documents_are_there("sharelink-hub", there)
    binary = folder / "usr/bin/sharelink-hub"
    assert binary.stat().st_mode & 0o777 == 0o755
    assert machine_of(binary) == machine and is_static(binary)
    assert output(*emulator, binary, "--version") == f"sharelink-hub {VERSIONS['sharelink-hub']}\n"
    # The default configuration is valid there, and says what is left to do.
    assert "nobody may call the API" in output(*emulator, binary, "check", "--config", folder / CONFIGURATION)
    assert output(*emulator, binary, "config") == (folder / CONFIGURATION).read_text()
    assert (folder / "lib/systemd/system/sharelink-hub.service").read_text() == (ROOT / "systemd/sharelink-hub.service").read_text()
    names_no_path_of_this_machine(binary)
    licences = output("zcat", folder / DOC / "third-party.txt.gz")
    assert "linked into sharelink-hub for" in licences and "\nhyper " in licences and "\nmusl, " in licences, licences[:2000]
    # What is vendored is in both, in the version that is there.
    vendored = re.search(r"npm package `mediabunny` (\S+) ", (ROOT / "hub/src/studio/vendor/README.md").read_text()).group(1)
    assert f"\nmediabunny {vendored} " in licences and "Mozilla Public License Version 2.0" in licences
    assert f"mediabunny, version {vendored}," in (folder / DOC / "copyright").read_text()
    page = output("zcat", folder / "usr/share/man/man8/sharelink-hub.8.gz")
    assert page == output("go-md2man", "-in", ROOT / "docs/sharelink-hub.8.md"), page[:500]


def control(folder, arch):
    """The fields, the configuration file, the scripts."""
    there = fields(deb(arch))
    assert (there["Package"], there["Version"], there["Architecture"]) == ("sharelink-hub", f"{VERSIONS['sharelink-hub']}-1", arch), there
    assert "libc6" not in there["Depends"] and there["Recommends"] == "ca-certificates", there
    output("dpkg-deb", "-e", deb(arch), folder)
    assert (folder / "conffiles").read_text() == f"/{CONFIGURATION}\n"
    for script in SCRIPTS:
        assert os.access(folder / script, os.X_OK), script
        output("sh", "-n", folder / script)
    output("shellcheck", "-x", *(folder / script for script in SCRIPTS), ROOT / "hub/package", cwd=ROOT)


def by_dpkg(folder, arch):
    """Install, configure, upgrade, remove, purge: what each leaves."""
    said = dpkg(folder, "-i", deb(arch))
    assert "sharelink-hub key" in said, said
    wanted = folder / "etc/systemd/system/multi-user.target.wants/sharelink-hub.service"
    assert wanted.is_symlink(), files_below(folder / "etc")
    configuration, secret = folder / CONFIGURATION, folder / "etc/sharelink-hub/links.1"
    mine = configuration.read_text().replace("#keys = []", "keys = []", 1)
    configuration.write_text(mine)
    secret.write_text("of the operator\n")
    revocations = folder / "var/lib/sharelink-hub/revocations"
    revocations.parent.mkdir(parents=True)  # as the unit's StateDirectory= does
    revocations.touch()
    wanted.unlink()  # disabled by the operator
    said = dpkg(folder, "-i", deb(arch))
    assert configuration.read_text() == mine, "an upgrade changed the configuration"
    assert "Still to configure" not in said, said
    assert not wanted.is_symlink(), "an upgrade enabled what the operator had disabled"
    dpkg(folder, "--remove", "sharelink-hub")
    left = {path for path in files_below(folder) if not path.startswith(("var/lib/dpkg/", "var/lib/systemd/"))}
    assert left == {CONFIGURATION, "etc/sharelink-hub/links.1", "var/lib/sharelink-hub/revocations"}, left
    dpkg(folder, "--purge", "sharelink-hub")
    left = {path for path in files_below(folder) if not path.startswith("var/lib/dpkg/")}
    assert not left, f"a purge leaves {sorted(left)}"


def user_and_directory(folder, arch):
    """In a system, the package makes the user of the unit, and a directory that only root writes and only the user's group
    reads; an upgrade leaves permissions alone, a purge removes the directory and keeps the user."""
    unit = (ROOT / "systemd/sharelink-hub.service").read_text()
    assert "\nUser=sharelink-hub\nGroup=sharelink-hub\n" in unit
    (folder / "etc").mkdir()
    (folder / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\nadm:x:4:\n")
    for name in ("shadow", "gshadow"):
        (folder / "etc" / name).write_text("root:*::0:99999:7:::\n" if name == "shadow" else "root:*::\nadm:*::\n")
    dpkg(folder, "-i", deb(arch))
    found = re.search(r"^sharelink-hub:x:(\d+):(\d+):[^:]*:/nonexistent:/usr/sbin/nologin$", (folder / "etc/passwd").read_text(), re.MULTILINE)
    assert found and int(found.group(1)) < 1000, (folder / "etc/passwd").read_text()
    assert f"sharelink-hub:x:{found.group(2)}:" in (folder / "etc/group").read_text()
    directory = folder / "etc/sharelink-hub"
    there = directory.stat()
    assert (there.st_mode & 0o7777, there.st_uid, there.st_gid) == (0o750, 0, int(found.group(2))), (oct(there.st_mode), there.st_gid)
    if arch == "amd64":
        # As the unit does: the user may read configuration and secrets, and another may not.
        configuration, secret = folder / CONFIGURATION, directory / "links.1"
        configuration.write_text(configuration.read_text().replace("#keys = []\n\n# How long", 'keys = [{ id = "1", key_file = "links.1" }]\n\n# How long', 1))
        secret.write_text(output(folder / "usr/bin/sharelink-hub", "secret"))
        secret.chmod(0o640)
        folder.chmod(0o755)
        os.chown(secret, 0, there.st_gid)
        command = ["/usr/bin/sharelink-hub", "check", "--config", f"/{CONFIGURATION}"]
        said = output(*in_tree(folder, int(found.group(1)), int(found.group(2))), *command)
        assert "key_file = " in said and "links.1" in said, said
        try:
            output(*in_tree(folder, 65534, 65534), *command)
        except AssertionError as refused:
            assert "exit 78" in str(refused) and "Permission denied" in str(refused), refused
        else:
            raise AssertionError("everybody may read the configuration")
    directory.chmod(0o700)
    before = [(folder / "etc" / name).read_text() for name in ("passwd", "group")]
    dpkg(folder, "-i", deb(arch))
    assert directory.stat().st_mode & 0o7777 == 0o700, "an upgrade changed the directory's mode"
    dpkg(folder, "--purge", "sharelink-hub")
    assert not directory.exists()
    assert [(folder / "etc" / name).read_text() for name in ("passwd", "group")] == before


def in_tree(root, user, group):
    """The beginning of a command that runs in a tree, as a user. The binaries are static: they need nothing there."""
    return [shutil.which("chroot", path=f"{os.environ['PATH']}:/usr/sbin"), f"--userspec={user}:{group}", str(root)]


class Hub:
    """A hub that runs, with a key."""

    def __init__(self, folder, *start):
        made = output(*start, "key", "--scopes", "publish read")
        self.key = re.search(r"^slk_\S+$", made, re.MULTILINE).group(0)
        row = re.search(r"\{.*\}", made).group(0)
        config = folder / "hub.toml"
        config.write_text(f'[api]\nlisten = "127.0.0.1:0"\nkeys = [{row}]\n[uplink]\nlisten = "127.0.0.1:0"\n')
        self.start = start
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*map(str, start), "run", "--config", str(config)], stderr=log)
        last = time.monotonic() + PATIENCE
        while not (found := re.search(r"the API is at (127\.0\.0\.1:\d+)", self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < last, f"the hub did not start: {self.log.read_text()}"
            time.sleep(0.05)
        self.api = f"http://{found.group(1)}"

    def call(self, *words):
        return output(*self.start, *words, "--api", self.api, env={**os.environ, "SHARELINK_KEY": self.key})

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()


def serves(folder, arch, emulator):
    """The packaged binary takes a message, and ends by SIGTERM."""
    output("dpkg-deb", "-x", deb(arch), folder)
    hub = Hub(folder, *emulator, folder / "usr/bin/sharelink-hub")
    try:
        assert hub.call("say", "demo", "hello") == "published: message 1 of demo\n"
        assert hub.call("status").startswith("engine: answers\n")
        hub.end()
    finally:
        hub.process.kill()


def image(folder, program, arch, machine):
    """The image as tools read it: whose process, what it starts, what is in it; made again, it has the same bytes."""
    file = image_file(program, arch)
    tag = f"{program}:{VERSIONS[program]}"
    # As podman and containerd take it, and as `docker load` does.
    for transport in ("oci-archive", "docker-archive"):
        config = json.loads(output("skopeo", "inspect", "--config", f"{transport}:{file}"))
        assert (config["architecture"], config["os"]) == (arch, "linux"), config
    runs = config["config"]
    directory = {"sharelink-hub": CONFIGURATION, "sharelinkd": "etc/sharelinkd/sharelinkd.toml"}[program]
    assert runs["User"] == f"{USER}:{USER}" and runs["StopSignal"] == "SIGTERM", runs
    assert runs["Entrypoint"] == [f"/{program}"] and runs["Cmd"] == ["run", "--config", f"/{directory}"], runs
    labels = runs["Labels"]
    assert labels["org.opencontainers.image.title"] == program and labels["org.opencontainers.image.version"] == VERSIONS[program], labels
    assert labels["org.opencontainers.image.licenses"] == "MIT OR Apache-2.0" and labels["org.opencontainers.image.created"] == config["created"], labels
    root = unpacked(folder, program, arch)
    binary = root / program
    assert machine_of(binary) == machine and is_static(binary)
    names_no_path_of_this_machine(binary)
    expected = {program, directory, *(f"usr/share/doc/{program}/{name}" for name in ("copyright", "third-party.txt.gz", "LICENSE-APACHE"))}
    if program == "sharelink-hub":
        expected |= {"etc/ssl/certs/ca-certificates.crt", "usr/share/doc/ca-certificates/copyright"}
        assert output("openssl", "storeutl", "-noout", "-certs", root / "etc/ssl/certs/ca-certificates.crt").count("Certificate") > 100
    assert files_below(root) == expected, files_below(root) ^ expected
    if os.geteuid() == 0:
        for path in root.rglob("*"):
            own = {"var/lib/sharelink-hub": 0o700, "run/sharelinkd": 0o700}.get(str(path.relative_to(root)))
            there = path.stat()
            assert (there.st_uid, there.st_gid) == ((USER, USER) if own else (0, 0)), path
            assert own is None or there.st_mode & 0o7777 == own, path
            assert there.st_mode & 0o002 == 0 or path == root / "tmp" and there.st_mode & 0o1000, path
    made = importlib.util.spec_from_file_location("image", ROOT / "hub/image.py")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    epoch = int(output("date", "-d", config["created"], "+%s"))
    third_party = root / f"usr/share/doc/{program}/third-party.txt.gz"
    revision = labels.get("org.opencontainers.image.revision", "")
    options = types.SimpleNamespace(program=program, binary=binary, third_party=third_party, arch=arch, version=VERSIONS[program], revision=revision, epoch=epoch)
    assert hashlib.sha256(module.image(options)).digest() == hashlib.sha256(file.read_bytes()).digest(), f"{tag}: made again, it differs"


def unpacked(folder, program, arch):
    """The root file system of an image."""
    layout = folder / f"layout-{program}"
    with tarfile.open(image_file(program, arch)) as archive:
        archive.extractall(layout, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(layout)
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    output("umoci", "unpack", *rootless, "--image", f"{layout}:{program}:{VERSIONS[program]}", folder / program)
    return folder / program / "rootfs"


def composed(folder):
    """compose.yaml is valid, and what it repeats is as it is elsewhere."""
    shutil.copytree(COMPOSE, folder, dirs_exist_ok=True)
    (folder / "secrets").mkdir()
    for name in ("uplink", "links"):
        (folder / "secrets" / name).touch()
    compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    for profile in ([], ["--profile", "valkey"]):
        output(*compose, *profile, "-f", folder / "compose.yaml", "config", "--quiet")
    text = (COMPOSE / "compose.yaml").read_text()
    for program, number in VERSIONS.items():
        assert f"image: {program}:{number}\n" in text, f"compose.yaml has another version of {program} than {number}"
    named = re.findall(r"(sharelink-hub|sharelinkd)[:-](\d+\.\d+\.\d+)", (ROOT / "docs/hub.md").read_text())
    assert len(named) >= 6 and all(VERSIONS[program] == number for program, number in named), f"docs/hub.md: {named}"
    # The limits of the relay's box.
    relay = unpacked(folder, "sharelinkd", "amd64") / "sharelinkd"
    limits = dict(re.findall(r"^(\w+)=(\d+)$", output(relay, "drop-in"), re.MULTILINE))
    assert f"mem_limit: {limits['MemoryMax']}\n" in text and f"nofile: {limits['LimitNOFILE']}," in text, limits
    unit = (ROOT / "systemd/sharelink-hub.service").read_text()
    assert "\nLimitNOFILE=16384\n" in unit and "nofile: 16384," in text
    # The gateway is the proxy that both trust.
    gateway = re.search(r"gateway: (\S+)", text).group(1)
    for name in ("hub.toml", "sharelinkd.toml"):
        assert f'trusted_proxies = ["{gateway}"]' in (COMPOSE / name).read_text(), name


def scene(folder):
    """Hub and relay run from their images as compose.yaml has them: a message gets in, the healthcheck is content."""
    roots = {program: unpacked(folder, program, "amd64") for program in VERSIONS}
    hub, relay = roots["sharelink-hub"], roots["sharelinkd"]
    secrets = {name: output(hub / "sharelink-hub", "secret") for name in ("uplink", "links")}
    secrets["webhook"] = output(hub / "sharelink-hub", "secret", "--webhook")
    key = output(hub / "sharelink-hub", "key", "--scopes", "publish read")
    (folder / "key").write_text(re.search(r"^slk_\S+$", key, re.MULTILINE).group(0))
    row = re.search(r"\{.*\},", key).group(0)
    for root, mine in ((hub, secrets), (relay, {"uplink": secrets["uplink"]})):
        (root / "run/secrets").mkdir(parents=True)
        for name, secret in mine.items():
            file = root / "run/secrets" / name
            file.write_text(secret)
            file.chmod(0o400)
            os.chown(file, USER, USER)
        # In place of the engine's name server.
        (root / "etc/hosts").write_text("127.0.0.1 hub-uplink localhost\n")
    text = (COMPOSE / "hub.toml").read_text().replace("keys = [\n]", f"keys = [{row}]")
    # With a webhook by https the hub starts only if the image has CAs. Nobody is called here.
    text += '[webhook]\nurl = "https://api.example/"\nsecret_files = ["/run/secrets/webhook"]\n'
    (hub / CONFIGURATION).write_text(text)
    (relay / "etc/sharelinkd/sharelinkd.toml").write_text((COMPOSE / "sharelinkd.toml").read_text())
    said = output("unshare", "--net", sys.executable, __file__, "--in-namespace", hub, relay, folder / "key")
    assert said.endswith("all is well\n"), said


def in_namespace(hub, relay, key):
    """In a network namespace of its own: the ports are those of the files."""
    output("ip", "link", "set", "lo", "up")
    as_user = lambda root, *words: [*in_tree(root, USER, USER), *words]  # noqa: E731
    environment = {"SHARELINK_KEY": pathlib.Path(key).read_text()}
    running = []
    try:
        for root, program, file in ((hub, "/sharelink-hub", "/etc/sharelink-hub/hub.toml"), (relay, "/sharelinkd", "/etc/sharelinkd/sharelinkd.toml")):
            print(output(*as_user(root, program, "check", "--config", file)).splitlines()[0])
            running.append(subprocess.Popen(as_user(root, program, "run", "--config", file), env={}))
        last = time.monotonic() + PATIENCE
        while subprocess.run(as_user(relay, "/sharelinkd", "status"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
            assert all(process.poll() is None for process in running), "hub or relay has ended"
            assert time.monotonic() < last, "the relay is not connected to the hub"
            time.sleep(0.1)
        call = as_user(hub, "/sharelink-hub")
        assert output(*call, "say", "demo", "hello", env=environment).startswith("published: message 1 ")
        status = output(*call, "status", env=environment)
        assert re.search(r"^gate-1 ", status, re.MULTILINE), status
        assert output("curl", "-sS", f"{API}/healthz") and "ok" in output("curl", "-sS", f"http://{PAGES}/healthz")
        # A restart of the container: revocations are the volume's.
        assert (pathlib.Path(hub) / "var/lib/sharelink-hub/revocations").exists()
        for process in reversed(running):
            process.terminate()
            assert process.wait(PATIENCE) == 0
        print("all is well")
    finally:
        for process in running:
            process.kill()


def main(chosen):
    for arch in chosen or KINDS:
        machine, emulator = KINDS[arch]
        check(f"hub, {arch}: what is in the package", content, arch, machine, emulator)
        check(f"hub, {arch}: its fields and scripts", control, arch)
        check(f"hub, {arch}: lintian finds no errors", lintian, deb(arch))
        check(f"hub, {arch}: installed, upgraded, removed and purged by dpkg", by_dpkg, arch)
        if os.geteuid() == 0:
            check(f"hub, {arch}: its user, and the directory of its secrets", user_and_directory, arch)
        else:
            print(f"SKIPPED hub, {arch}: its user: needs root")
        check(f"hub, {arch}: it serves", serves, arch, emulator)
        for program in VERSIONS:
            # `hub/package arm64 --hub` makes none of the relay.
            if arch == "amd64" or program == "sharelink-hub" or image_file(program, arch).exists():
                check(f"{program}, {arch}: the image", image, program, arch, machine)
            else:
                print(f"SKIPPED {program}, {arch}: there is no image")
    if "amd64" in (chosen or KINDS):
        check("compose.yaml", composed)
        if os.geteuid() == 0:
            check("hub and relay from their images, as in compose.yaml", scene)
        else:
            print("SKIPPED hub and relay from their images: needs root")
    end()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-namespace"]:
        in_namespace(*sys.argv[2:])
    else:
        main(sys.argv[1:])

"""What the checks of both programs' packages share: commands, dpkg in a separate tree, the report."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "target" / "packages"
# The documents, which both packages have, for a machine without a network. All of them: a new one
# belongs in the list.
DOCUMENTS = {
    "api.md", "console.md", "dependencies.md", "hub-metrics.md", "hub.md", "ingest.md", "install.md", "metrics.md", "page-client.md", "performance.md", "protocol.md", "proxies.md",
    "reliability.md", "security.md", "sharelink-hub.8.md", "sharelinkd.8.md", "sizing.md", "tls.md", "webhooks.md",
}
SCRIPTS = ("postinst", "prerm", "postrm")
failures = []


def version(manifest):
    return re.search(r'^version = "(.*)"$', (ROOT / manifest).read_text(), re.MULTILINE).group(1)


def output(*command, **options):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def check(name, function, *arguments):
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="sharelinkd-packages-") as folder:
            function(pathlib.Path(folder), *arguments)
        print(f"ok   {name} ({time.monotonic() - started:.1f} s)", flush=True)
    except Exception as error:  # noqa: BLE001: the other checks go on
        failures.append(name)
        print(f"FAIL {name}\n{type(error).__name__}: {error}", flush=True)


def end():
    if failures:
        sys.exit(f"{len(failures)} failed: {', '.join(failures)}")


def fields(deb):
    lines = output("dpkg-deb", "-f", deb).splitlines()
    return dict(line.split(": ", 1) for line in lines if re.match(r"^[A-Z][\w-]*: ", line))


def owners_and_modes(deb):
    for line in output("dpkg-deb", "-c", deb).splitlines():
        assert line.split()[1] in ("root/root", "0/0") and line[8] != "w", line


def documents_are_there(package, there):
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == DOCUMENTS, "DOCUMENTS in tests/packages/tools.py is not docs/*.md"
    missing = {name for name in DOCUMENTS if f"usr/share/doc/{package}/{name}" not in there}
    assert not missing, f"{package} lacks {sorted(missing)}"


def machine_of(binary):
    head = binary.read_bytes()[:20]
    assert head[:4] == b"\x7fELF", head
    return int.from_bytes(head[18:20], "little")


def names_no_path_of_this_machine(binary):
    for word in (str(ROOT), os.path.expanduser("~/.cargo")):
        assert word.encode() not in binary.read_bytes(), f"the binary names {word}"


def lintian(_folder, deb):
    print(output("lintian", "--allow-root", "--fail-on", "error", deb), end="")


def dpkg(folder, *arguments):
    database = folder / "var/lib/dpkg"
    for name in ("info", "updates", "triggers"):
        (database / name).mkdir(parents=True, exist_ok=True)
    for name in ("status", "available"):
        (database / name).touch()
    # In a separate tree: the scripts run with DPKG_ROOT set, without the package's dependencies.
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    options = ["--force-script-chrootless", "--force-not-root", "--force-depends", "--force-architecture", "--force-confold", f"--root={folder}", "--log=/dev/null"]
    return output("dpkg", *options, *arguments, env=environment)

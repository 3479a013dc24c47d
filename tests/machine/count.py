"""Counts a relay's instructions: `sharelinkd bench` in an emulated machine whose clock counts instructions.

QEMU's `-icount shift=0` makes one nanosecond of the guest's clock one instruction, of user and kernel alike; there is one core.
So processor time is a number of instructions, which hardly depends on this machine. It is not a time: cores take more or
less than a nanosecond for an instruction. Owns the runs and their table. The guest is a Debian kernel with busybox, the
board's binary and the bench as its only work; relay, pages and business server share the core.
"""
import json
import pathlib
import re
import subprocess
import sys
import tomllib

import image as images

HERE = pathlib.Path(__file__).resolve().parent
# Connections under way at once while the table arrives: half of the board's places.
AT_ONCE = {"arm64": 64, "armhf": 32}
# Pages that messages are delivered to. On armhf each is written to by a call of its own, and
# handshakes take long.
PAGES = {"arm64": 1000, "armhf": 200}
MEMORY_MB = {"arm64": 2048, "armhf": 1024}
LIBRARIES = ["ld-linux-armhf.so.3", "libc.so.6", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"]
KEYS = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}
SUITES = {"aes": "AES-128-GCM", "chacha20": "ChaCha20"}
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
ip link set lo up
ulimit -n 65536
"""
# As if the pages were elsewhere: the relay is not interrupted for each page that it has written to,
# but works until it has nothing more to do.
UNINTERRUPTED = """mount -t debugfs none /sys/kernel/debug
cd /sys/kernel/debug/sched
echo NO_WAKEUP_PREEMPTION >features
for file in latency_ns min_granularity_ns base_slice_ns; do
    if [ -e $file ]; then echo 1000000000 >$file; fi
done
cd /
"""


def pair(work, name):
    """A certificate of its own with such a key, as PEM."""
    files = [work / f"{name}-{part}.pem" for part in ("certificate", "key")]
    if not all(file.exists() for file in files):
        images.run("openssl", "req", "-x509", "-newkey", *KEYS[name], "-nodes", "-days", "3650", "-subj", "/CN=box", "-addext", "subjectAltName=IP:127.0.0.1",
                   "-out", files[0], "-keyout", files[1], stderr=subprocess.DEVNULL)
    return files


def with_pair(name):
    return f"--certificate /{name}-certificate.pem --key /{name}-key.pem"


def first(image, binary, steps, settings):
    """The guest's file system: its init runs each step and prints its report."""
    boot, release = image.boot()
    files = {"bin/busybox": (0o755, (boot / "bin/busybox").read_bytes()), "bin/sharelinkd": (0o755, binary.read_bytes())}
    for name in KEYS:
        for file in pair(image.work, name):
            files[file.name] = (0o600, file.read_bytes())
    if image.arch == "armhf":
        for name in LIBRARIES:
            found = sorted((boot / "lib").rglob(name))
            if not found:
                raise SystemExit(f"tests/machine/count: no {name} in {boot}, which an older version made: remove it")
            files[f"lib/{name}"] = (0o755, found[-1].read_bytes())
    lines = [line for name, words in steps.items() for line in (f"echo '@begin {name}'", f"sharelinkd bench {words} --json 2>&1 </dev/null", "echo \"@end $?\"")]
    files["init"] = (0o755, (INIT + settings + "\n".join([*lines, "poweroff -f"]) + "\n").encode())
    path = image.work / f"count-{image.arch}.cpio"
    images.pack(path, ["bin", "dev", "lib", "proc", "sys", "tmp"], files)
    return boot / f"boot/vmlinuz-{release}", path


def reports(image, binary, steps, settings=""):
    """Runs the steps in one guest; yields each one's name and report."""
    kernel, initrd = first(image, binary, steps, settings)
    command = [*image.qemu(), *image.machine["arguments"], "-smp", "1", "-m", str(MEMORY_MB[image.arch]), "-icount", "shift=0,sleep=off",
               "-nodefaults", "-display", "none", "-nic", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initrd),
               "-append", f"console={image.machine['tty']} quiet"]
    guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    name, said, done = None, [], 0
    try:
        for line in guest.stdout:
            if begun := re.search(r"@begin (.+)", line):
                name, said = begun[1].strip(), []
            elif ended := re.search(r"@end (\d+)", line):
                if ended[1] != "0":
                    raise SystemExit(f"tests/machine/count: {steps[name]}: {''.join(said)}")
                yield name, json.loads(said[-1])
                done += 1
            else:
                said.append(line)
    finally:
        guest.kill()
        guest.wait()
    if done != len(steps):
        raise SystemExit(f"tests/machine/count: the guest ended after {done} of {len(steps)} runs: {''.join(said)[-3000:]}")


def deliveries(image, binary, _):
    common = f"--tls --plain --pages {PAGES[image.arch]} --seconds 1 {with_pair('ecdsa')}"
    steps = {f"{suite} {under_way}": f"{common} --suite {suite} --under-way {under_way}" for under_way in (1, 4) for suite in SUITES}
    print(f"{image.arch}, a delivery of 200 B to each of {PAGES[image.arch]} pages: thousands of instructions")
    print(f"{'':34}{'relay':>24}{'':8}{'with pages and server':>28}")
    print(f"{'':34}{'TLS':>8}{'plain':>8}{'ratio':>8}{'':8}{'TLS':>12}{'plain':>8}{'ratio':>8}", flush=True)
    for name, report in reports(image, binary, steps, UNINTERRUPTED):
        suite, under_way = name.split()
        own = [report[kind]["processor for each delivery, us"] for kind in ("relay", "plain")]
        whole = [1e6 / report[kind]["deliveries a second"] for kind in ("relay", "plain")]
        print(f"{SUITES[suite] + ', ' + under_way + ' in flight':34}{own[0]:8.2f}{own[1]:8.2f}{own[0] / own[1]:8.3f}{'':8}"
              f"{whole[0]:12.2f}{whole[1]:8.2f}{whole[0] / whole[1]:8.3f}", flush=True)


def arrivals(image, binary, wanted):
    limit = tomllib.loads((HERE.parents[1] / f"board/{image.arch}-gateway.toml").read_text())["tables"]["pages_max"]
    # The bench has a page of its own.
    pages, at_once = min(int(wanted or limit), limit - 1), AT_ONCE[image.arch]
    common = f"--mode arrivals --pages {pages} --under-way {at_once}"
    steps = {"plain": common}
    for key in KEYS:
        for kind, option in (("full", ""), ("resumed", " --resumed")):
            steps[f"{key} {kind}"] = f"{common} --tls {with_pair(key)}{option}"
    print(f"{image.arch}, {pages} pages arrive, {at_once} at once, and subscribe: instructions of the relay, and seconds at 1 ns for each")
    print(f"{'':20}{'a page, million':>18}{f'{limit} pages, s':>18}{'with the pages, s':>20}", flush=True)
    for name, report in reports(image, binary, steps):
        each = report["relay"]["processor for each arrival, us"] / 1000
        whole = limit / report["relay"]["arrivals a second"]
        print(f"{name:20}{each:18.3f}{each * limit / 1000:18.1f}{whole:20.1f}", flush=True)


def main():
    arch, binary, part, pages, work = sys.argv[1:]
    image = images.Image(arch, work)
    for name, measure in (("deliveries", deliveries), ("arrivals", arrivals)):
        if part in ("all", name):
            measure(image, pathlib.Path(binary), pages)


if __name__ == "__main__":
    main()

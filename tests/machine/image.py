"""A Debian with systemd for one architecture, as a disk for QEMU: made once in the work folder, and used again.

Owns QEMU itself, the root file system, kernel and first file system, and the disk that carries files in. Knows nothing
of sharelinkd. Everything comes from the Debian archive of this machine's own apt (archive.py), whose release it is; the guest has
no network and needs none.
"""
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys

import archive

HERE = pathlib.Path(__file__).resolve().parent
# A small gateway's packages, and curl and Python for the trial's pages and business server.
PACKAGES = "systemd-sysv,udev,dbus,iproute2,procps,curl,python3-minimal,libpython3-stdlib,less,man-db,login,util-linux,kmod,passwd"
# Debian's kernel package, QEMU's program and machine; tty and other are the two serial lines,
# second is QEMU's option for the other one (older versions give the ARM machine only one UART).
MACHINES = {
    "arm64": {"kernel": "linux-image-arm64", "qemu": "qemu-system-aarch64", "package": "qemu-system-arm", "tty": "ttyAMA0", "other": "ttyS0", "second": ["-device", "pci-serial,chardev=second"],
              "arguments": ["-M", "virt,gic-version=3", "-cpu", "cortex-a53"]},
    "armhf": {"kernel": "linux-image-armmp-lpae", "qemu": "qemu-system-arm", "package": "qemu-system-arm", "tty": "ttyAMA0", "other": "ttyS0", "second": ["-device", "pci-serial,chardev=second"],
              "arguments": ["-M", "virt,highmem=off", "-cpu", "cortex-a15"]},
    "amd64": {"kernel": "linux-image-amd64", "qemu": "qemu-system-x86_64", "package": "qemu-system-x86", "tty": "ttyS0", "other": "ttyS1", "second": ["-serial", "chardev:second"],
              "arguments": ["-M", "q35"]},
}
# Loaded before the root file system is mounted.
FIRST_MODULES = ["virtio_pci", "virtio_mmio", "virtio_blk", "ext4", "crc32c_generic", "virtio_console", "virtio_rng"]
# Directories of modules that no such guest needs: half of them by size.
LEFT_OUT = ["drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/net/ethernet", "drivers/infiniband", "drivers/scsi",
            "drivers/iio", "drivers/staging", "drivers/infiniband", "sound", "fs/ocfs2", "fs/xfs", "fs/btrfs"]


def say(text):
    print(f"-- {text}", flush=True)


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def debootstrap(*words, target, emulate=False, backports=False):
    """Installs into a folder or an archive; `backports` are preferred if given."""
    debian = archive.of_this_machine()
    options = ["APT::Install-Recommends \"false\"", "Acquire::Languages \"none\"", "Acquire::Retries \"3\"", *archive.proxies()]
    sources = [*debian.sources, *([debian.backports] if backports else [])]
    if backports:
        options.append(f"APT::Default-Release \"{debian.release}-backports\"")
    command = ["mmdebstrap", "--mode=root", *(f"--aptopt={option}" for option in options), *words, debian.release, target, *sources]
    if emulate:
        command = [sys.executable, HERE / "foreign.py", *command]
    try:
        run(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error.output.decode(errors='replace')[-3000:]}\ntests/machine: mmdebstrap failed")


def newer(made, *sources):
    return made.exists() and all(made.stat().st_mtime >= source.stat().st_mtime for source in sources)


class Image:
    def __init__(self, arch, work):
        self.arch, self.machine = arch, MACHINES[arch]
        self.work = pathlib.Path(work)
        self.work.mkdir(parents=True, exist_ok=True)
        native = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
        self.foreign = arch != native and not (arch, native) == ("armhf", "arm64")
        self.kernel = self.work / f"vmlinuz-{arch}"
        self.first = self.work / f"first-{arch}.cpio"
        self.disk = self.work / f"disk-{arch}.ext4"

    def qemu(self):
        """QEMU's command: the machine's own, or one unpacked beside the images if Debian's can't be installed."""
        name, package = self.machine["qemu"], self.machine["package"]
        if found := shutil.which(name):
            return [found]
        tools = self.work / "qemu"
        if not (tools / "usr/bin" / name).exists():
            say(f"{package} is not installed: unpacked into {tools}")
            shutil.rmtree(tools, ignore_errors=True)
            wanted = ["qemu-system-arm", "qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios", "ipxe-qemu"]
            debootstrap("--variant=extract", f"--include={','.join(wanted)}", target=tools, backports=True)
        loader = next(path for path in sorted((tools / "lib64").iterdir()) if path.name.startswith("ld-linux"))
        loader = tools / os.readlink(loader).lstrip("/")
        triple = loader.parent.name
        command = [str(loader), "--library-path", f"{tools}/usr/lib/{triple}:{tools}/lib/{triple}", f"{tools}/usr/bin/{name}"]
        for data in ("share/qemu", "share/seabios", "lib/ipxe/qemu"):
            command += ["-L", f"{tools}/usr/{data}"]
        return command

    def make(self):
        root = self.work / f"root-{self.arch}.tar"
        if not newer(root):
            say(f"a Debian for {self.arch}: some minutes, once")
            part = root.with_suffix(".part.tar")
            debootstrap(f"--architectures={self.arch}", "--variant=minbase", f"--include={PACKAGES}", target=part, emulate=self.foreign)
            part.rename(root)
        boot, release = self.boot()
        if not newer(self.disk, root, pathlib.Path(__file__)):
            say("its disk")
            shutil.copy(boot / f"boot/vmlinuz-{release}", self.kernel)
            self.pack_disk(root, boot, release)
        return self

    def boot(self):
        """A folder with its kernel, busybox and the C library, and the kernel's release."""
        boot = self.work / f"boot-{self.arch}"
        if not boot.exists():
            say("its kernel")
            part = boot.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            debootstrap(f"--architectures={self.arch}", "--variant=extract", f"--include={self.machine['kernel']},busybox-static,libc6,libgcc-s1", target=part)
            part.rename(boot)
        return boot, next((boot / "lib/modules").iterdir()).name

    def pack_disk(self, root, boot, release):
        tree = self.work / f"tree-{self.arch}"
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        run("tar", "-C", tree, "--exclude=./dev/*", "-xf", root)
        modules = tree / "usr/lib/modules" / release
        left_out = {str(boot / "lib/modules" / release / "kernel" / name) for name in LEFT_OUT}
        shutil.copytree(boot / "lib/modules" / release, modules, symlinks=True,
                        ignore=lambda folder, names: [name for name in names if f"{folder}/{name}" in left_out])
        run("depmod", "-b", tree, release)
        self.pack_first(boot, modules)
        self.settle(tree)
        part = self.disk.with_suffix(".part")
        part.unlink(missing_ok=True)
        run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", tree, part, "1400M", stdout=subprocess.DEVNULL, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})
        part.rename(self.disk)
        shutil.rmtree(tree)

    def settle(self, tree):
        """Prepares it for the trial: a name, root without a password, the disk of files."""
        (tree / "etc/hostname").write_text("gateway\n")
        (tree / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 gateway\n::1 localhost\n")
        (tree / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\nLABEL=files /mnt ext4 ro,nofail 0 0\n")
        (tree / "etc/machine-id").write_text("")
        shadow = tree / "etc/shadow"
        shadow.write_text(shadow.read_text().replace("root:*:", "root::", 1))
        for name in ("apt-daily.timer", "apt-daily-upgrade.timer", "man-db.timer", "e2scrub_all.timer", "fstrim.timer", "dpkg-db-backup.timer"):
            link = tree / "etc/systemd/system" / name
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        # minbase excludes manual pages from packages; the trial reads ours.
        for path in (tree / "etc/dpkg/dpkg.cfg.d").glob("*"):
            path.unlink()
        # The trial's access: a shell on the virtual console, which no gateway has. The serial lines
        # stay as in Debian.
        drop_in = tree / "etc/systemd/system/serial-getty@hvc0.service.d"
        drop_in.mkdir(parents=True)
        (drop_in / "way-in.conf").write_text("[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %I dumb\n")

    def pack_first(self, boot, modules):
        """The first file system: busybox and the modules that the disk needs, in the order of their dependencies."""
        needs = {}
        for line in (modules / "modules.dep").read_text().splitlines():
            path, _, after = line.partition(":")
            needs[pathlib.Path(path).name.split(".")[0].replace("-", "_")] = [path, *after.split()]
        order = []
        for name in FIRST_MODULES:
            # A module is loaded after its line's dependencies, in reverse order.
            order += [path for path in reversed(needs.get(name, [])) if path not in order]
        files = {"bin/busybox": (0o755, (boot / "bin/busybox").read_bytes())}
        steps = ["#!/bin/busybox sh", "/bin/busybox mkdir -p /proc /sys /dev /new", "/bin/busybox mount -t devtmpfs none /dev"]
        for path in order:
            files["modules/" + pathlib.Path(path).name] = (0o644, (modules / path).read_bytes())
            steps.append(f"/bin/busybox insmod /modules/{pathlib.Path(path).name}")
        steps += ["while ! [ -e /dev/vda ]; do /bin/busybox sleep 0.1; done", "/bin/busybox mount -t ext4 /dev/vda /new",
                  "/bin/busybox mount --move /dev /new/dev", "exec /bin/busybox switch_root /new /sbin/init"]
        files["init"] = (0o755, "\n".join(steps).encode() + b"\n")
        pack(self.first, ["bin", "modules", "dev"], files)

    def files(self, folder, name):
        """A disk with the files of a folder, mounted at /mnt in the guest."""
        disk = self.work / f"{name}.ext4"
        disk.unlink(missing_ok=True)
        size = sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())
        run("/sbin/mke2fs", "-q", "-t", "ext4", "-L", "files", "-d", folder, disk, f"{size * 5 // 4 // 2**20 + 8}M", stdout=subprocess.DEVNULL)
        return disk


def pack(path, folders, files):
    """Writes a first file system: `files` by name, each its mode and its bytes."""
    with open(path, "wb") as out:
        for number, name in enumerate(folders):
            out.write(record(name, stat.S_IFDIR | 0o755, b"", number + 100))
        out.write(record("dev/console", stat.S_IFCHR | 0o600, b"", 99, (5, 1)))
        for number, (name, (mode, data)) in enumerate(files.items()):
            out.write(record(name, stat.S_IFREG | mode, data, number + 1000))
        out.write(record("TRAILER!!!", 0, b"", 0))


def record(name, mode, data, inode, device=(0, 0)):
    """One entry of a newc cpio archive."""
    fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)

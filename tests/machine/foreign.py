#!/usr/bin/env python3
"""foreign.py COMMAND [ARGUMENT]...: runs a command with transparent emulation of ARM programs.

The emulators are registered in a new user namespace (Linux 6.7 and later have one binfmt_misc for each), so the
machine's own registration is untouched and nothing is left behind. Needs root, for the whole range of ids.
"""
import ctypes
import os
import sys

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
REGISTRY = "/proc/sys/fs/binfmt_misc"
# Emulator, ELF class (1: 32 bits, 2: 64 bits), machine number.
EMULATED = [("aarch64", 2, 0xB7), ("arm", 1, 0x28)]


def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def escaped(values):
    return "".join(f"\\x{value:02x}" for value in values)


def register():
    call("mount", b"none", REGISTRY.encode(), b"binfmt_misc", 0, None)
    for name, bits, machine in EMULATED:
        magic = [0x7F, *b"ELF", bits, 1, 1, 0, *[0] * 8, 2, 0, machine, 0]
        mask = [*[0xFF] * 7, 0, *[0xFF] * 8, 0xFE, 0xFF, 0xFF, 0xFF]
        # F: the emulator is opened now, so that a chroot needs no copy of it. P: keep argv[0].
        with open(f"{REGISTRY}/register", "w") as registry:
            registry.write(f":{name}:M::{escaped(magic)}:{escaped(mask)}:/usr/bin/qemu-{name}-static:FP")


def main():
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os.setgid(0)
        os.setuid(0)
        register()
        # The first child is process 1 of the new namespace; when it exits, the whole namespace
        # ends.
        inner = os.fork()
        if inner == 0:
            os.execvp(sys.argv[1], sys.argv[1:])
        os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) & 0xFF)
    os.close(ready[1])
    if os.read(ready[0], 1):
        for kind in ("uid", "gid"):
            with open(f"/proc/{child}/{kind}_map", "w") as ids:
                ids.write("0 0 4294967295\n")
    os.write(go[1], b"x")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


if __name__ == "__main__":
    sys.exit(main())

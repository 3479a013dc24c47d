#!/usr/bin/env python3
"""Writes a container image of a static binary, without a network, a daemon or another image.

    hub/image.py PROGRAM --binary FILE --arch ARCH --version VERSION --epoch SECONDS --third-party FILE --output FILE

PROGRAM is sharelink-hub or sharelinkd. The output is one tar archive with an OCI image layout, which podman, skopeo and
containerd load; its `manifest.json` is for `docker load`. The image is from scratch: the program, its configuration,
licences, and for the hub Mozilla's CAs as Debian has them. No shell, no package, no root. Equal inputs give equal bytes:
names are sorted, every time is SECONDS, every owner is given here."""
import argparse
import gzip
import hashlib
import io
import json
import pathlib
import tarfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
# No account of the host should have it; images without a root user have this number by custom.
USER = 65532
# The CAs of Debian's package alone: the machine's own bundle may have some that only its owner
# trusts.
AUTHORITIES = pathlib.Path("/usr/share/ca-certificates/mozilla")
AUTHORITIES_COPYRIGHT = pathlib.Path("/usr/share/doc/ca-certificates/copyright")
PROGRAMS = {
    "sharelink-hub": {
        "description": "Hub of sharelinkd: one curl to publish, one webhook to admit",
        "configuration": ("hub/hub.toml", "etc/sharelink-hub/hub.toml"),
        "copyright": "hub/debian/copyright",
        "ports": ["7400/tcp", "8090/tcp"],
        # For [topics] revocations_file, and for `dev`.
        "directories": [("var/lib/sharelink-hub", 0o700, USER), ("tmp", 0o1777, 0)],
        "authorities": True,
    },
    "sharelinkd": {
        "description": "Edge relay that shows an app's live content on the page behind a share link",
        "configuration": ("systemd/sharelinkd.toml", "etc/sharelinkd/sharelinkd.toml"),
        "copyright": "systemd/debian/copyright",
        "ports": ["8080/tcp"],
        # For the console's socket.
        "directories": [("run/sharelinkd", 0o700, USER)],
        # The uplink trusts only the CA or the key that its configuration names.
        "authorities": False,
    },
}


def authorities():
    """Debian's copy of Mozilla's CAs, as one file."""
    found = sorted(AUTHORITIES.glob("*.crt"))
    if not found:
        raise SystemExit(f"hub/image.py: {AUTHORITIES} has no CAs: install the package ca-certificates")
    return "".join(path.read_text().strip() + "\n" for path in found).encode()


def contents(name, binary, third_party):
    """The image's files: path, mode, bytes."""
    about = PROGRAMS[name]
    source, configuration = about["configuration"]
    files = [
        (name, 0o755, binary.read_bytes()),
        (configuration, 0o644, (ROOT / source).read_bytes()),
        (f"usr/share/doc/{name}/copyright", 0o644, (ROOT / about["copyright"]).read_bytes()),
        (f"usr/share/doc/{name}/third-party.txt.gz", 0o644, third_party.read_bytes()),
    ]
    # The text that the copyright refers to.
    files.append((f"usr/share/doc/{name}/LICENSE-APACHE", 0o644, (ROOT / "LICENSE-APACHE").read_bytes()))
    if about["authorities"]:
        files.append(("etc/ssl/certs/ca-certificates.crt", 0o644, authorities()))
        files.append(("usr/share/doc/ca-certificates/copyright", 0o644, AUTHORITIES_COPYRIGHT.read_bytes()))
    return files


class Archive:
    """A tar archive in memory."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w", format=tarfile.USTAR_FORMAT)
        self.there = set()

    def directory(self, path, mode=0o755, owner=0):
        """Adds it, and those above it that are not there."""
        parent = str(pathlib.PurePosixPath(path).parent)
        if parent != ".":
            self.directory(parent)
        if path not in self.there:
            self.there.add(path)
            self._add(path, mode, owner, None)

    def file(self, path, data, mode=0o644):
        """Adds it, and the directories above it."""
        parent = str(pathlib.PurePosixPath(path).parent)
        if parent != ".":
            self.directory(parent)
        self._add(path, mode, 0, data)

    def _add(self, path, mode, owner, data):
        entry = tarfile.TarInfo(path)
        entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
        entry.mode, entry.mtime, entry.uid, entry.gid = mode, self.epoch, owner, owner
        entry.size = len(data or b"")
        self.tar.addfile(entry, io.BytesIO(data or b""))

    def end(self):
        self.tar.close()
        return self.bytes.getvalue()


def layer(name, binary, third_party, epoch):
    """The only layer, not compressed."""
    archive = Archive(epoch)
    # Before the files: a file's directories get the modes that everything else has.
    for path, mode, owner in PROGRAMS[name]["directories"]:
        archive.directory(path, mode, owner)
    for path, mode, data in sorted(contents(name, binary, third_party)):
        archive.file(path, data, mode)
    return archive.end()


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encoded(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def image(options):
    """The whole archive."""
    name, about = options.program, PROGRAMS[options.program]
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(options.epoch))
    labels = {
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.description": about["description"],
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        "org.opencontainers.image.title": name,
        "org.opencontainers.image.version": options.version,
    }
    if options.revision:
        labels["org.opencontainers.image.revision"] = options.revision
    plain = layer(name, options.binary, options.third_party, options.epoch)
    packed = gzip.compress(plain, 9, mtime=0)
    config = encoded({
        "architecture": options.arch,
        "os": "linux",
        "created": created,
        "config": {
            "User": f"{USER}:{USER}",
            "ExposedPorts": {port: {} for port in about["ports"]},
            "Entrypoint": [f"/{name}"],
            "Cmd": ["run", "--config", f"/{about['configuration'][1]}"],
            "WorkingDir": "/",
            "Labels": labels,
            "StopSignal": "SIGTERM",
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
        "history": [{"created": created, "created_by": "hub/image.py"}],
    })
    described = lambda kind, data: {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(data), "size": len(data)}  # noqa: E731
    manifest = encoded({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", config),
        "layers": [described("layer.v1.tar+gzip", packed)],
        "annotations": labels,
    })
    tag = f"{name}:{options.version}"
    index = encoded({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            **described("manifest.v1+json", manifest),
            "platform": {"architecture": options.arch, "os": "linux"},
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }],
    })
    blob = lambda data: "blobs/" + digest(data).replace(":", "/")  # noqa: E731
    archive = Archive(options.epoch)
    archive.file("oci-layout", encoded({"imageLayoutVersion": "1.0.0"}))
    archive.file("index.json", index)
    archive.file("manifest.json", encoded([{"Config": blob(config), "RepoTags": [tag], "Layers": [blob(packed)]}]))
    for data in sorted((config, manifest, packed), key=digest):
        archive.file(blob(data), data)
    return archive.end()


def main():
    parser = argparse.ArgumentParser(description="Writes a container image of a static binary.")
    parser.add_argument("program", choices=sorted(PROGRAMS))
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--arch", choices=["amd64", "arm64"], required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--revision", default="", help="the commit; it becomes a label")
    parser.add_argument("--epoch", type=int, required=True, help="the time of everything, in seconds")
    parser.add_argument("--third-party", type=pathlib.Path, required=True, help="the licences of what is linked in, .txt.gz")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.output.write_bytes(image(options))


if __name__ == "__main__":
    main()

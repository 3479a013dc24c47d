#!/usr/bin/env python3
"""The licences of everything that is linked into the binary for a target: a list, then each text once.

    board/licences.py TARGET [MANIFEST]

MANIFEST is the Cargo.toml of the program, by default the relay's.
Reads Cargo's resolved dependencies and the crates' own licence files, also those of code that a crate took from others
and keeps in a folder. Fails if a crate has no licence, or none of
those that this project accepts: such a crate can't be shipped."""
import json
import pathlib
import re
import subprocess
import sys
import tomllib

# deny.toml has the list, for everything that is compiled or tested with.
ACCEPTED = set(tomllib.loads((pathlib.Path(__file__).resolve().parents[1] / "deny.toml").read_text())["licenses"]["allow"])
NAMES = re.compile(r"^(licen[cs]e|copying|unlicense|notice)", re.IGNORECASE)


def linked(metadata):
    """The packages that this one depends on by normal dependencies, without those of this tree."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, queue = {root}, [root]
    while queue:
        for dependency in nodes[queue.pop()]["deps"]:
            ordinary = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if ordinary and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                queue.append(dependency["pkg"])
    ours = set(metadata["workspace_members"])
    return [package for package in metadata["packages"] if package["id"] in seen - ours]


def is_accepted(expression):
    """Whether every part of the AND expression offers an accepted licence."""
    for part in re.sub(r"[()]", "", expression.replace("/", " OR ")).split(" AND "):
        if not {choice.strip() for choice in part.split(" OR ")} & ACCEPTED:
            return False
    return True


# What a program contains that is no crate: label, licence, folder with its text.
VENDORED = {"sharelink-hub": [("mediabunny 1.61.0", "MPL-2.0", "hub/src/studio/vendor")]}

# Folders of a package that are not compiled into a program.
UNUSED = {"tests", "benches", "examples", "fuzz"}


def licence_texts(folder, licence):
    """The texts in a package that has this licence. Where there is a choice we take MIT: a short text with the authors' own
    copyright."""
    texts = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if not (path.is_file() and NAMES.match(path.name)) or UNUSED & set(inside[:-1]):
            continue
        text = "\n".join(line.rstrip() for line in path.read_text(errors="replace").strip().splitlines())
        choice = licence if len(inside) == 1 else " OR ".join(beside.name for beside in path.parent.iterdir())
        if not ("MIT" in choice and "Apache License" in text):
            texts.append(text)
    return texts


def main(target, manifest="Cargo.toml"):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target, "--manifest-path", manifest]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = linked(metadata)
    program = next(package["name"] for package in metadata["packages"] if package["id"] == metadata["resolve"]["root"])
    rows, texts = [], {}
    for package in sorted(packages, key=lambda package: package["name"]):
        label = f"{package['name']} {package['version']}"
        licence = package["license"] or ""
        if not is_accepted(licence):
            raise SystemExit(f"board/licences.py: {label} has the licence {licence!r}, which is not accepted")
        rows.append(f"{label:<32}{licence}")
        own = licence_texts(pathlib.Path(package["manifest_path"]).parent, licence)
        for text in own:
            texts.setdefault(text, []).append(label)
        if not own:
            rows[-1] += f"; no text in its package; by {', '.join(package['authors']) or 'its authors'}"
    for label, licence, folder in VENDORED.get(program, []):
        rows.append(f"{label:<32}{licence}")
        for text in licence_texts(pathlib.Path(__file__).resolve().parents[1] / folder, licence):
            texts.setdefault(text, []).append(label)
    rows.append(f"{'the Rust standard library':<32}MIT OR Apache-2.0")
    if target.endswith("musl"):
        rows.append(f"{'musl, the C library':<32}MIT")
    print(f"Software linked into {program} for {target}, and its licences.\n")
    print("\n".join(rows))
    for text, owners in texts.items():
        print(f"\n{'=' * 78}\n{', '.join(owners)}\n{'=' * 78}\n\n{text}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: board/licences.py TARGET [MANIFEST]")
    main(*sys.argv[1:])

"""What the tarball and the wheel must have in them, and nothing else: tests/sdk/contents.py FOLDER"""
import pathlib
import re
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LICENCES = {"LICENSE-MIT", "LICENSE-APACHE"}


def below(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in paths if not {"__pycache__", "node_modules"} & set(path.parts)}


def main(folder):
    [tarball] = folder.glob("*.tgz")
    [wheel] = folder.glob("*.whl")
    with tarfile.open(tarball) as archive:
        packed = {name.removeprefix("package/") for name in archive.getnames()}
    there = below(ROOT / "sdk/node")
    assert packed == there and LICENCES | {"README.md", "index.d.ts"} <= there, packed ^ there
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    modules = {name for name in names if name.startswith("sharelinkd/")}
    there = {f"sharelinkd/{name}" for name in below(ROOT / "sdk/python/src/sharelinkd")}
    assert modules == there and "sharelinkd/py.typed" in there, modules ^ there
    assert LICENCES <= {name.split("/")[-1] for name in names}, names
    assert "Requires-Dist" not in metadata and "License-Expression: MIT OR Apache-2.0" in metadata, metadata
    version = re.search('^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert (tarball.name, wheel.name) == (f"sharelinkd-server-{version}.tgz", f"sharelinkd-{version}-py3-none-any.whl")
    for readme, name in (("node", tarball.name), ("python", wheel.name)):
        assert name in (ROOT / "sdk" / readme / "README.md").read_text(), f"sdk/{readme}/README.md: {name}"
    assert '"dependencies"' not in (ROOT / "sdk/node/package.json").read_text()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

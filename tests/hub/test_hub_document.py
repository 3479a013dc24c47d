"""docs/openapi.yaml, by public tools: it is valid, and the hub does what it says."""
import asyncio
import os
import pathlib
import sys

from daemon import ROOT
from harness import test
from inbox import Mismatch

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENT = ROOT / "docs" / "openapi.yaml"
EXAMPLES_MAX = 40  # of each operation and phase: about 1200 requests in all


def tool(name):
    """A program of the Python environment that runs this: tests/hub/run makes it."""
    path = pathlib.Path(sys.executable).parent / name
    if not path.exists():
        raise Mismatch(f"{path} is missing: start the tests by tests/hub/run")
    return str(path)


async def output(t, *command, **environment):
    """Runs a program in the test's own folder; returns its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=t.directory, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120", **environment})
    said, _ = await process.communicate()
    return process.returncode, said.decode(errors="replace")


@test("the document is valid OpenAPI 3.1")
async def valid(t):
    code, said = await output(t, tool("openapi-spec-validator"), str(DOCUMENT))
    assert code == 0, said


@test("whatever the document allows is taken, whatever it does not allow is refused, and each answer is as it says", timeout=240)
async def conforms(t):
    hub = await t.hub(limits={"connections_per_address": 64})
    relay = await t.relay_end(hub, "hall")  # whose page the document's example closes
    code, said = await output(
        t, tool("schemathesis"), "--config-file", str(HERE / "schemathesis.toml"), "run", str(DOCUMENT), "--url", f"http://127.0.0.1:{hub.port}",
        "--checks", "all", "--max-examples", str(EXAMPLES_MAX), "--workers", "1",
        HUB_KEY=hub.key, SCHEMATHESIS_HOOKS="hooks", PYTHONPATH=str(HERE), PYTHONDONTWRITEBYTECODE="1")
    if code != 0:
        raise Mismatch(said[-8000:].replace(hub.key, "KEY"))
    assert "Tested: 20" in said, said[-2000:]
    await relay.expect("Kick", page=41)
    assert hub.memory() < 256 << 20
    # What remains is in order.
    assert await hub.api("GET", "/v1/topics?limit=1000")
    await relay.barrier()

"""Places of connections that are not pages yet: a flooding address loses its places first, and an answer is limited only by
its progress."""
import asyncio
import contextlib
import errno
import pathlib
import socket
import statistics
import sys
import time

import harness
import lag
import tls
from daemon import without_options
from harness import test
from inbox import SLACK
from websocket import http, read_head, read_response

FLOOD = pathlib.Path(__file__).with_name("squatters.py")
ROUNDS = 15


@contextlib.asynccontextmanager
async def flood(port, count, hosts, said=""):
    """Connections that reconnect whenever they are cut; see squatters.py."""
    if said == "G" and port in tls.LINES:
        said = b"\x16"  # a hello's first byte
    said = said.encode() if isinstance(said, str) else said
    process = await asyncio.create_subprocess_exec(sys.executable, str(FLOOD), str(port), str(count), str(hosts), *[said.hex()] * bool(said),
                                                   stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 20 * SLACK) == b"ready\n"
        yield
    finally:
        process.stdin.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 10)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def asked(port, rounds=ROUNDS):
    """Durations of successive requests."""
    took = []
    for _ in range(rounds):
        began = time.monotonic()
        response = await http(port, "/healthz", source="127.0.0.9", timeout=20 * SLACK)
        assert response is not None and response.status == 200, f"cut off: {response}"
        took.append(time.monotonic() - began - lag.lost(began))
    return took


async def opened(port, source, buffer=4096):
    """A connection with a small receive buffer."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.setblocking(False)
    raw.bind((source, 0))
    await asyncio.get_event_loop().sock_connect(raw, ("127.0.0.1", port))
    # A stream holds several times as much itself, and takes nothing from the kernel meanwhile.
    return await tls.open_connection(sock=raw, limit=buffer // 4)


async def phone(port, source, per_s, step=0.1, before=0.0, turns=contextlib.nullcontext()):
    """Reads /sharelink.js at this rate; returns the received and the expected size of the body."""
    async with turns:
        reader, writer = await opened(port, source)
    try:
        writer.write(b"GET /sharelink.js HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers = await asyncio.wait_for(read_head(reader), 60 * SLACK)
        assert status == 200, status
        got, size, began = 0, int(headers["content-length"]), time.monotonic() + before
        await asyncio.sleep(before)
        while got < size:
            await asyncio.sleep(step)
            # What is due by now, however late this loop is.
            want = min(int(per_s * (time.monotonic() - began)), size) - got
            while want:
                data = await asyncio.wait_for(reader.read(want), 60 * SLACK)
                if not data:
                    return got, size
                got, want = got + len(data), want - len(data)
        return got, size
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0, -1
    finally:
        writer.transport.abort()


async def plain(t, is_deferred=True, **changes):
    """A relay without TCP_DEFER_ACCEPT, with which the kernel would hide a silent connection for its first second."""
    daemon = t.daemon(["127.0.0.1:1"], **changes)
    if not is_deferred:
        daemon.before = without_options([9], errno.ENOPROTOOPT)
    return await daemon.start()


def flooded(sentence, count, hosts, said=""):
    @test(sentence, timeout=120, crowded=True, plain=not said)
    async def flooded(t):
        for is_deferred in (True, False):
            daemon = await plain(t, is_deferred)
            alone = statistics.median(await asked(daemon.port))
            async with flood(daemon.port, count, hosts, said):
                took = await asked(daemon.port)
            assert statistics.median(took) < alone + 0.5 * SLACK, f"{statistics.median(took):.2f} s at the median, {max(took):.2f} at worst, {is_deferred=}"


flooded("600 connections of one address that say nothing cost another's request no wait", 600, 1)
flooded("1 500 connections of one address that say nothing cost another's request no wait", 1500, 1)
flooded("600 connections from 250 addresses that say nothing cost another's request no wait", 600, 250)
flooded("600 connections of one address that begin a head and don't end it cost another's request no wait", 600, 1, "G")
flooded("600 connections from 250 addresses that begin a head and don't end it cost another's request no wait", 600, 250, "G")


@test("an answer that is read slowly arrives whole while 600 connections of another address want its place", timeout=180, crowded=True)
async def slow_readers(t):
    daemon = await plain(t, is_deferred=False)
    async with flood(daemon.port, 600, 1):
        for _ in range(2 if harness.AUTHORITY else 4):
            got = await asyncio.gather(*(phone(daemon.port, t.source(), 15_000) for _ in range(25)))
            cut = [pair for pair in got if pair[0] != pair[1]]
            assert not cut, f"{len(cut)} of {len(got)} were cut off: {cut[:5]}"


@test("500 slow phones at once each get the page client whole, though there are fewer places than that", timeout=240, crowded=True)
async def phones(t):
    for hosts in (1,) if harness.AUTHORITY else (500, 1):
        daemon = await plain(t)
        sources = (f"127.7.{number % hosts // 250}.{number % hosts % 250 + 1}" for number in range(500))
        # All of them are in one process: no more shake hands at once than it can answer in time.
        turns = asyncio.Semaphore(50 if daemon.port in tls.LINES else 500)
        got = await asyncio.gather(*(phone(daemon.port, source, 12_000, step=0.3, turns=turns) for source in sources))
        cut = [pair for pair in got if pair[0] != pair[1]]
        assert not cut, f"{len(cut)} of {len(got)} from {hosts} addresses were cut off: {cut[:5]}"


@test("what limits an answer is its progress: at 1 KB/s it takes some 45 s and arrives whole", waits=50)
async def thin_line(t):
    daemon = await plain(t)
    began = time.monotonic()
    got, size = await phone(daemon.port, t.source(), 1_000)
    assert got == size and time.monotonic() - began > 10, (got, size)


@test("a line that is dead for 6 s in the middle of an answer costs nothing of it", waits=20)
async def dead_for_a_while(t):
    got, size = await phone((await plain(t)).port, t.source(), 12_000, before=6)
    assert got == size, (got, size)


@test("an answer of which nothing is taken for 10 s is given up", waits=20)
async def stuck(t):
    daemon = await plain(t)
    reader, writer = await opened(daemon.port, t.source(), 2048)
    reader._transport.pause_reading()  # unread data stays in the relay's kernel
    began = time.monotonic()
    writer.write(b"GET /sharelink.js HTTP/1.1\r\nHost: x\r\n\r\n")
    while heads(daemon):
        assert time.monotonic() - began < 25 * SLACK, "it keeps its place"
        await asyncio.sleep(0.2)
    assert time.monotonic() - began > 9, "it was given up early"
    writer.transport.abort()


def heads(daemon):
    """The relay's connections on its port."""
    rows = (line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
    open_states = ("01", "04", "05")  # established, and our FIN sent
    return sum(row[1].endswith(f":{daemon.port:04X}") and row[3] in open_states for row in rows)


@test("a peer that half-closes after its request gets the whole answer")
async def half_closed(t):
    daemon = await plain(t)
    for _ in range(5):
        reader, writer = await opened(daemon.port, t.source())
        writer.write(b"GET /sharelink.js HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write_eof()
        response = await asyncio.wait_for(read_response(reader), 20 * SLACK)
        assert response.status == 200 and response.body.endswith(b"\n"), response
        writer.close()


@test("a head that comes slowly is waited for while another address floods the places", timeout=120, crowded=True)
async def slow_head(t):
    daemon = await plain(t)
    async with flood(daemon.port, 600, 1, "G"):
        reader, writer = await tls.open_connection(port=daemon.port, local_addr=(t.source(), 0))
        for part in (b"GET /health", b"z HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n"):
            writer.write(part)
            await asyncio.sleep(0.5)
        response = await asyncio.wait_for(read_response(reader), 10 * SLACK)
        assert response.status == 200, response
        writer.close()


@test("behind a trusted proxy each connection counts separately", timeout=120, crowded=True, plain=True)
async def proxied(t):
    daemon = await plain(t, pages={"trusted_proxies": ["127.66.0.0/16"]}, limits={"heads": 8})
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port, local_addr=("127.66.0.1", 0))
    writer.write(b"GET /health")
    held = [await asyncio.open_connection("127.0.0.1", daemon.port, local_addr=("127.0.0.9", 0)) for _ in range(7)]
    for _, other in held:
        other.write(b"G")
    await asked(daemon.port, 1)
    for _ in range(6):  # of the address with the most places: they displace its own
        made = await asyncio.open_connection("127.0.0.1", daemon.port, local_addr=("127.0.0.9", 0))
        made[1].write(b"G")
        held.append(made)
        await asked(daemon.port, 1)
    writer.write(b"z HTTP/1.1\r\nHost: x\r\n\r\n")
    response = await asyncio.wait_for(read_response(reader), 10 * SLACK)
    assert response.status == 200, response
    for _, other in held:
        other.transport.abort()
    writer.close()

"""Who has no business with the hub: pages of other sites, floods, slow and huge requests."""
import asyncio
import json
import pathlib

from harness import test
from hub import row
from inbox import SLACK, Mismatch
from test_hub_document import output

MIB = 1 << 20
GROWTH_MAX = 96 * MIB  # of the hub's resident memory by a flood: of connections, bodies and answers
HERE = pathlib.Path(__file__).resolve().parent


@test("a page of another origin, in the browser of an operator, publishes and reads nothing by the API", timeout=180)
async def outsider(t):
    hub = await t.hub()
    await hub.message("open", "before")
    code, said = await output(t, "node", str(HERE / "outsider.mjs"), f"http://127.0.0.1:{hub.port}", hub.key)
    assert code == 0, said
    done = json.loads(said.splitlines()[-1])
    statuses = {answer[3] for answer in done["answers"]}
    assert done["attempts"] >= 90 and len(done["answers"]) > 30, done
    # 401 for what the browser sends as if nobody's page had asked: a link that was followed.
    assert statuses <= {401, 403, 404, 405}, sorted(map(str, done["answers"]))
    assert any(answer[3] == 403 and answer[1] == "POST" for answer in done["answers"]), done["answers"]
    assert done["read"] == "", done["read"]
    topics = await hub.api("GET", "/v1/topics")
    assert topics["topics"] == [{"topic": "open", "ended": False}], topics
    assert (await hub.api("GET", "/v1/topics/open"))["messages"]["next"] == 2


class Flood:
    """Connections from some addresses, each of which sends something."""

    def __init__(self, hub):
        self.hub, self.open, self.refused, self.tasks, self.said = hub, [], 0, [], []

    async def connect(self, count, sources, first=b""):
        turns = asyncio.Semaphore(100)

        async def one(source):
            async with turns:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.hub.port, local_addr=(source, 0))
                    writer.write(first)
                    self.open.append((reader, writer))
                    self.tasks.append(asyncio.ensure_future(self.listen(reader)))
                except OSError:
                    self.refused += 1
        await asyncio.gather(*(one(sources[n % len(sources)]) for n in range(count)))

    def drip(self, data=b"x"):
        """Sends this on each connection, each second."""
        async def forever():
            while True:
                for _, writer in self.open:
                    if not writer.transport.is_closing():
                        writer.write(data)
                await asyncio.sleep(1)
        self.tasks.append(asyncio.ensure_future(forever()))

    async def listen(self, reader):
        """From the beginning on: what was said before a reset is not lost with it."""
        said = b""
        try:
            while part := await reader.read(4096):
                said += part
        except OSError:
            pass
        self.said.append(said)

    async def answers(self, count, timeout=30 * SLACK):
        """Waits until this many connections have ended; returns what each said."""
        async with asyncio.timeout(timeout):
            while len(self.said) < count:
                await asyncio.sleep(0.05)
        return self.said

    def close(self):
        for task in self.tasks:
            task.cancel()
        for _, writer in self.open:
            writer.transport.abort()


async def others_are_served(t, hub, relay, seconds):
    """Meanwhile each request from another address is answered, and reaches the relay."""
    until = asyncio.get_running_loop().time() + seconds
    while True:
        n = await hub.message("room", "meanwhile", timeout=20 * SLACK)
        await relay.expect("Publish", 20 * SLACK, sequence=n)
        assert (await hub.http("GET", "/healthz", timeout=20 * SLACK)).status == 200
        if asyncio.get_running_loop().time() > until:
            return
        await asyncio.sleep(0.2)


async def served(t, **sections):
    hub = await t.hub(**sections)
    relay = await t.relay_end(hub)
    await relay.accepted(await hub.link("room"))
    # What a first request costs is no growth.
    await hub.message("room", "first")
    return hub, relay, hub.memory()


def bounded(hub, before):
    grown = hub.memory() - before
    if grown > GROWTH_MAX:
        raise Mismatch(f"the hub has {grown // MIB} MiB more than before")


@test("2 000 connections from one address take no more than their share, and others are served", waits=10)
async def connections(t):
    hub, relay, before = await served(t)
    flood = Flood(hub)
    await flood.connect(2000, ["127.9.9.9"])
    await others_are_served(t, hub, relay, 2)
    bounded(hub, before)
    said = await flood.answers(1744)
    assert sum(answer.startswith(b"HTTP/1.1 503") for answer in said) > 1000, said[:3]
    flood.close()
    await others_are_served(t, hub, relay, 0)
    # The address itself, too, once its connections are gone.
    async with asyncio.timeout(30 * SLACK):
        while await health(hub, "127.9.9.9") != 200:
            await asyncio.sleep(0.1)


async def health(hub, source):
    """The status; none where the connection was refused, and reset by what it sent."""
    try:
        return (await hub.http("GET", "/healthz", source=source)).status
    except (Mismatch, OSError):
        return None


@test("heads that drip are answered by 408, and others are served", waits=15)
async def slow_heads(t):
    hub, relay, before = await served(t)
    flood = Flood(hub)
    await flood.connect(750, ["127.9.9.7", "127.9.9.8", "127.9.9.9"], b"POST /v1/topics/room/messages HTTP/1.1\r\nX-A: ")
    flood.drip()
    await others_are_served(t, hub, relay, 3)
    bounded(hub, before)
    said = await flood.answers(len(flood.open))
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in said), {answer[:40] for answer in said}
    flood.close()


def begun(size, path, rest=b"["):
    """The beginning of a request with a body of this size."""
    return (f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer slk_tenant\r\nContent-Type: application/json\r\n"
            f"Content-Length: {size}\r\n\r\n").encode() + rest


@test("bodies that drip, of one key, take no room of the publications of others, and end with 408", waits=25)
async def slow_bodies(t):
    hub = await t.hub()
    await hub.reload(api={"keys": [row("all", hub.key), row("tenant", "slk_tenant", topics="tenant")]})
    relay = await t.relay_end(hub)
    await relay.accepted(await hub.link("room"))
    await hub.message("room", "first")
    before = hub.memory()
    small, large = Flood(hub), Flood(hub)
    await small.connect(100, ["127.9.9.9"], begun(65_000, "/v1/topics/tenant/messages"))
    await asyncio.sleep(0.5)
    # Down to the last KiB, whatever room there is: all but the last bytes of large ones.
    for size, count in ((MIB, 60), (MIB // 2, 24), (200_000, 12), (100_000, 8), (5_000, 8), (1_500, 12)):
        await large.connect(count, ["127.9.9.9"], begun(size, "/v1/batch", b" " * max(size - 20_000, 1)))
        await asyncio.sleep(0.3)
    small.drip()
    large.drip()
    await others_are_served(t, hub, relay, 3)
    bounded(hub, before)
    said = await small.answers(len(small.open), 60 * SLACK)
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in said), {answer[:40] for answer in said}
    small.close()
    large.close()


@test("a body of 10 MiB is refused by 413, with its length said or not, and costs no memory")
async def huge(t):
    hub, relay, before = await served(t)
    for path in ("/v1/topics/room/messages", "/v1/batch", "/v1/publish", "/v1/links", "/v1/kick"):
        # Its length is enough. Who sends on all the same may lose the answer.
        for sent, statuses in ((8 << 10, (413,)), (10 * MIB, (413, None))):
            said = {"Content-Length": str(10 * MIB)}
            assert await status(hub, path, b"[" + b" " * (sent - 1), said) in statuses, path
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    for path, limit in (("/v1/topics/room/messages", 64 << 10), ("/v1/batch", MIB)):
        for count, statuses in ((limit // 65_536 + 1, (413,)), (160, (413, None))):
            said = {"Content-Length": None, "Transfer-Encoding": "chunked"}
            assert await status(hub, path, chunk * count, said) in statuses, path
    bounded(hub, before)
    await others_are_served(t, hub, relay, 0)


async def status(hub, path, data, headers):
    """The answer's status; None where the connection was reset."""
    try:
        return (await hub.http("POST", path, data, headers=headers)).status
    except (Mismatch, OSError):
        return None


@test("deep and endless JSON is refused, and costs neither stack nor memory")
async def deep(t):
    hub, relay, before = await served(t)
    for size in (257, 1000, 65_000):
        nested = b"[" * (size // 2) + b"]" * (size // 2) if size > 514 else b"[" * size + b"]" * size
        answer = await hub.http("POST", "/v1/topics/deep/messages", nested)
        assert answer.status == 400, (size, answer)
        answer = await hub.http("PUT", "/v1/topics/deep/state", b'{"a":' * (size // 7) + b"1" + b"}" * (size // 7) if size > 1000 else nested)
        assert answer.status == 400, (size, answer)
    deep = b"[" * 400_000 + b"]" * 400_000
    for path, body in (("/v1/batch", deep), ("/v1/batch", b'{"operations":' + deep + b"}"),
                       ("/v1/batch", b'{"operations":[' + b"1," * 400_000 + b"1]}"), ("/v1/publish", b'{"topics":' + b"[" * 60_000),
                       ("/v1/links", b'{"topic":' + b"[" * 3000), ("/v1/batch", b'{"operations":[{"op":"message","topic":"deep","data":' + deep + b"}]}")):
        answer = await hub.http("POST", path, body)
        assert answer.status in (400, 422) or (answer.status == 200 and b'"status":200' not in answer.body), (body[:60], answer)
    assert (await hub.http("POST", "/v1/topics/room/messages", b"[" * 256 + b"]" * 256)).status == 200
    assert [one["topic"] for one in (await hub.api("GET", "/v1/topics"))["topics"]] == ["room"]
    bounded(hub, before)
    await others_are_served(t, hub, relay, 0)


@test("requests without end by a wrong key are refused, each by 401, and others are served", waits=8)
async def wrong_keys(t):
    hub, relay, before = await served(t, api={})
    ended, count = asyncio.Event(), [0]

    async def guess():
        while not ended.is_set():
            answer = await hub.http("POST", "/v1/topics/room/messages", {"text": "guessed"}, key="slk_" + "A" * 43, source="127.9.9.9")
            assert answer.status == 401, answer
            count[0] += 1
    guesses = [asyncio.ensure_future(guess()) for _ in range(20)]
    await others_are_served(t, hub, relay, 2)
    ended.set()
    await asyncio.gather(*guesses)
    bounded(hub, before)
    assert count[0] > 20
    texts = [m["data"] for m in (await hub.api("GET", "/v1/topics/room/messages?limit=1000"))["messages"]]
    assert {"text": "guessed"} not in texts

"""Picture and sound from real encoders: the commands and recipes of docs/ingest.md, against a real hub and a real relay."""
import asyncio
import json
import re
import signal
import subprocess
import types

from daemon import ROOT
from harness import test
from hub import binary
from inbox import SLACK, Mismatch

LONG = 30 * SLACK
DOCUMENT = (ROOT / "docs" / "ingest.md").read_text()
SOURCE = '-re -f lavfi -i "testsrc2=size=320x180:rate=30[out0];sine=440[out1]"'  # endless, in place of a file
USED = set()


def recipe(heading, language="sh"):
    """The block of this language in this section of the document."""
    found = [text for section, kind, text in blocks() if (section, kind) == (heading, language)]
    assert len(found) == 1, f"docs/ingest.md has {len(found)} blocks of {language} below {heading!r}"
    USED.add((heading, language))
    return found[0]


def blocks():
    parts = re.split(r"^##+ (.*)$", DOCUMENT, flags=re.M)
    for heading, text in zip(parts[1::2], parts[2::2]):
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S):
            if "Untried here" not in text:
                yield heading, language, block


LIVE, WHY, FIFO, WEBM = (recipe(heading) for heading in ("With ffmpeg", 'Where ffmpeg only says "Broken pipe"', "After a cut", "WebM"))
PUSH, SOUND, TO_RTMP = recipe("From standard input"), recipe("Sound of its own"), recipe("RTMP")
RTMP, NGINX, HAPROXY, CADDY = recipe("RTMP", "nginx"), *(recipe("Behind a proxy", kind) for kind in ("nginx", "haproxy", "caddy"))


def replaced(text, *pairs):
    for old, new in pairs:
        assert old in text, f"{old} is not in {text}"
        text = text.replace(old, new)
    return text


def line(text, port, *pairs):
    """A command of the document for a hub at this port, with less work for the machine."""
    text = replaced(text, ("127.0.0.1:8090", f"127.0.0.1:{port}"), *pairs)
    for old, new in (("640x360", "320x180"), ("veryfast", "ultrafast"), ("-re -i in.mp4", SOURCE)):
        text = text.replace(old, new)
    # A single command takes the shell's place, so that signals reach it.
    return text if "|" in text else f"exec {text}"


async def room(t, **sections):
    """A hub, a relay, and a page at the topic `demo`."""
    hub = await t.hub(**sections)
    page = await t.page(await t.box(hub))
    topic = (await page.join(await hub.link("demo"), timeout=LONG))["topic"]
    return hub, page, topic


async def plays(page, track="video"):
    """Waits for a header and the group behind it; returns the MIME type."""
    init = await page.until("media", track=track, part="init", timeout=LONG)
    await page.until("media", track=track, part="start", timeout=LONG)
    return init["mime"]


async def whole(hub, page, topic, track="video"):
    """The chunks of a stream that has ended, as (part, data), beginning with its header; and what the hub counted."""
    await hub.logs(f"{track} has ended after", LONG)
    groups, chunks = map(int, re.search(rf"{track} has ended after (\d+) groups, (\d+) chunks", hub.log()).groups())
    seen = await page.track(topic, track, 1 + chunks, timeout=LONG)
    got = [(e["part"], e["data"]) for _, e in page.events.history if e["type"] == "media" and e["track"] == track]
    return got, groups, any(one.startswith("gap") for one in seen)


def packets(t, chunks, medium):
    """What ffprobe finds in a stream: (time, is_key) of each packet. It must find no fault."""
    path = t.directory / "stream"
    path.write_bytes(b"".join(chunks))
    out = subprocess.run(["ffprobe", "-v", "error", "-select_streams", medium, "-show_entries", "packet=pts_time,flags", "-of", "json", path],
                         check=True, capture_output=True, text=True)
    assert not out.stderr, out.stderr
    return [(float(packet["pts_time"]), packet["flags"].startswith("K")) for packet in json.loads(out.stdout)["packets"]]


def begins_with_keyframes(t, got):
    """The times of the first pictures of all groups."""
    init, times, at = got[0][1], [], 0
    assert got[0][0] == "init" and got[1][0] == "start", [part for part, _ in got[:3]]
    for part, data in got[1:]:
        at += part == "start"
        if part == "start":
            (time, is_key), *_ = packets(t, [init, data], "v")
            assert is_key, f"group {at} begins with no keyframe"
            times.append(time)
    decoded = subprocess.run(["ffmpeg", "-v", "error", "-i", "-", "-f", "null", "-"], input=b"".join(data for _, data in got), capture_output=True)
    assert decoded.returncode == 0 and not decoded.stderr, decoded.stderr
    return times


class Wire:
    """A TCP proxy in front of a hub: it keeps what the hub answers, and can cut all connections."""

    def __init__(self, port):
        self.hub_port, self.answers, self.writers = port, [], set()

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader, writer):
        try:
            hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", self.hub_port)
        except OSError:
            writer.transport.abort()
            return
        self.writers |= {writer, hub_writer}
        self.answers.append(bytearray())
        sending = asyncio.ensure_future(self.pump(reader, hub_writer))
        # ffmpeg does not wait for the answer: until the hub closes, it is not told that ffmpeg did.
        await self.pump(hub_reader, writer, self.answers[-1])
        sending.cancel()
        writer.close()
        hub_writer.close()

    @staticmethod
    async def pump(reader, writer, kept=None):
        try:
            while data := await reader.read(65536):
                if kept is not None:
                    kept += data
                if not writer.is_closing():
                    writer.write(data)
        except OSError:
            pass

    def cut(self):
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def answer(self):
        """The document at the end of an answer."""
        async with asyncio.timeout(LONG):
            while not self.answers or not self.answers[-1].endswith(b"}"):
                await asyncio.sleep(0.05)
        head, _, body = bytes(self.answers[-1]).rpartition(b"\r\n\r\n")
        return int(head.rpartition(b"HTTP/1.1 ")[2][:3]), json.loads(body)


@test("each command with ffmpeg in docs/ingest.md is run here, or marked as untried")
async def covered(_):
    for heading, language, text in blocks():
        assert "ffmpeg " not in text or language == "text" or (heading, language) in USED, f"{heading}: {text}"


@test("ffmpeg as docs/ingest.md says goes live: its header, a group each second from a keyframe on, and an answer at its end", timeout=120)
async def live(t):
    hub, page, topic = await room(t)
    wire = await Wire(hub.port).start()
    encoder = await t.command(line(LIVE, wire.port, ("-c:v", "-t 3 -c:v")), KEY=hub.key)
    assert await encoder.exit() == 0, encoder.said()
    status, ended = await wire.answer()
    got, groups, has_gap = await whole(hub, page, topic)
    assert (status, groups, ended["groups"]) == (200, 3, 3), (status, groups, ended)
    mime = next(e["mime"] for _, e in page.events.history if e.get("part") == "init")
    assert mime == ended["mime"] and re.fullmatch(r'video/mp4; codecs="avc1\.42[0-9A-F]{4},mp4a\.40\.2"', mime), (mime, ended)
    times = begins_with_keyframes(t, got)
    assert [round(time) for time in times] == [0, 1, 2] or has_gap, times
    sound = packets(t, [data for _, data in got], "a")
    assert has_gap or 2.9 < sound[-1][0] < 3.1, sound[-1]
    wire.server.close()


@test("the command that `sharelink-hub dev` prints goes live", timeout=120)
async def dev(t):
    hub = await t.command(f"exec {binary()} dev --port 0 --api-port 0")
    await hub.says("Press Ctrl-C")
    said = hub.said()
    key, share = re.search(r"export SHARELINK_KEY=(\S+)", said)[1], re.search(r"http://127\.0\.0\.1:(\d+)/s/(\S+)", said)
    printed = re.search(r"^  (ffmpeg .*?)\n\n", said, re.M | re.S)[1]
    page = await t.page(types.SimpleNamespace(port=int(share[1])))
    await page.join(share[2], timeout=LONG)
    small = replaced(printed, ("640x360", "320x180"), ("veryfast", "ultrafast"), ("-c:v", "-t 3 -c:v"))
    encoder = await t.command(f"exec {small}", SHARELINK_KEY=key)
    assert re.fullmatch(r'video/mp4; codecs="avc1\.42[0-9A-F]{4},mp4a\.40\.2"', await plays(page))
    assert await encoder.exit() == 0, encoder.said()


@test("WebM from ffmpeg, with VP8 and VP9, and Matroska with the same", timeout=120)
async def webm(t):
    hub, page, topic = await room(t)
    encoder = await t.command(line(WEBM, hub.port, ("-c:v", "-t 3 -c:v")), KEY=hub.key)
    assert await encoder.exit() == 0, encoder.said()
    got, groups, has_gap = await whole(hub, page, topic)
    assert groups == 3 and page.events.history, groups
    times = begins_with_keyframes(t, got)
    assert [round(time) for time in times] == [0, 1, 2] or has_gap, times
    for codec, container in (("libvpx-vp9", "webm"), ("libvpx", "matroska")):
        changed = (("-c:v libvpx", f"-t 2 -c:v {codec}"), ("-f webm", f"-f {container}"))
        encoder = await t.command(line(WEBM, hub.port, *changed), KEY=hub.key)
        assert await plays(page) == f'video/webm; codecs="{"vp9" if "vp9" in codec else "vp8"},opus"'
        assert await encoder.exit() == 0, encoder.said()


@test("sound alone is the topic's audio, beside an encoder with picture alone", timeout=120)
async def sound(t):
    hub, page, topic = await room(t)
    speaker = await t.command(line(SOUND, hub.port), KEY=hub.key)
    assert await plays(page, "audio") == 'audio/mp4; codecs="mp4a.40.2"'
    camera = await t.command(line(LIVE, hub.port, ("-c:a aac", "-an")), KEY=hub.key)
    assert re.fullmatch(r'video/mp4; codecs="avc1\.42[0-9A-F]{4}"', await plays(page))
    for track in ("audio", "video"):
        await page.until("media", track=track, part="continue", timeout=LONG)
    assert (await hub.api("GET", "/v1/topics/demo"))["live"] == {"audio": True, "video": True}
    speaker.signal(signal.SIGINT)
    await speaker.exit()
    got, groups, _ = await whole(hub, page, topic, "audio")
    assert groups >= 1 and packets(t, [data for _, data in got], "a")
    await not_live(hub, audio=False, video=True)
    camera.signal(signal.SIGINT)
    await camera.exit()
    await not_live(hub, audio=False, video=False)


async def not_live(hub, **tracks):
    async with asyncio.timeout(LONG):
        while (await hub.api("GET", "/v1/topics/demo"))["live"] != tracks:
            await asyncio.sleep(0.05)

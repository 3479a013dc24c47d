"""Picture and sound from real encoders: the commands and recipes of docs/ingest.md, against a real hub and a real relay."""
import asyncio
import json
import os
import re
import signal
import subprocess
import types

from daemon import ROOT
from harness import PORTS, test
from hub import binary, row
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
    await hub.logs(f"{track} has ended after", 30)
    groups, chunks = map(int, re.search(rf"{track} has ended after (\d+) groups, (\d+) chunks", hub.log()).groups())
    async with asyncio.timeout(LONG):
        while True:
            events = [e for _, e in page.events.history if e.get("topic") == topic and e.get("track") == track]
            if max((e.get("sequence") or e["to"] for e in events), default=0) > chunks:
                break
            await asyncio.sleep(0.05)
    page.events.items.clear()
    got = [(e["part"], e["data"]) for e in events if e["type"] == "media"]
    return got, groups, any(e["type"] == "gap" for e in events)


async def looked_at(program, chunks, *options):
    """What a program of ffmpeg says of a stream. It must find no fault."""
    command = [program, "-v", "error", "-i", "-", *options]
    out = await asyncio.to_thread(subprocess.run, command, input=b"".join(chunks), capture_output=True)
    assert out.returncode == 0 and not out.stderr, out.stderr
    return out.stdout


async def packets(chunks, medium):
    """What ffprobe finds in a stream: (time, is_key) of each packet."""
    out = await looked_at("ffprobe", chunks, "-select_streams", medium, "-show_entries", "packet=pts_time,flags", "-of", "json")
    return [(float(packet["pts_time"]), packet["flags"].startswith("K")) for packet in json.loads(out)["packets"]]


async def begins_with_keyframes(got):
    """The times of the first pictures of all groups."""
    init, times, at = got[0][1], [], 0
    assert got[0][0] == "init" and got[1][0] == "start", [part for part, _ in got[:3]]
    for part, data in got[1:]:
        at += part == "start"
        if part == "start":
            (time, is_key), *_ = await packets([init, data], "v")
            assert is_key, f"group {at} begins with no keyframe"
            times.append(time)
    await looked_at("ffmpeg", [data for _, data in got], "-f", "null", "-")
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
            while not self.answers or not self.answers[-1].endswith(b"}\n"):
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
    times = await begins_with_keyframes(got)
    assert [round(time) for time in times] == [0, 1, 2] or has_gap, times
    sound = await packets([data for _, data in got], "a")
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
    times = await begins_with_keyframes(got)
    assert [round(time) for time in times] == [0, 1, 2] or has_gap, times
    for codec, container in (("libvpx-vp9", "webm"), ("libvpx", "matroska")):
        # Without -auth_type ffmpeg asks first which key is wanted: that is no refusal.
        changed = (("-c:v libvpx", f"-t 2 -c:v {codec}"), ("-f webm", f"-f {container}"), ("-auth_type basic ", ""))
        encoder = await t.command(line(WEBM, hub.port, *changed), KEY=hub.key)
        assert await plays(page) == f'video/webm; codecs="{"vp9" if "vp9" in codec else "vp8"},opus"'
        assert await encoder.exit() == 0, encoder.said()
    assert "refused" not in hub.log(), hub.log()


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
    assert groups >= 1 and await packets([data for _, data in got], "a")
    await not_live(hub, audio=False, video=True)
    camera.signal(signal.SIGINT)
    await camera.exit()
    await not_live(hub, audio=False, video=False)


async def not_live(hub, **tracks):
    async with asyncio.timeout(LONG):
        while (await hub.api("GET", "/v1/topics/demo"))["live"] != tracks:
            await asyncio.sleep(0.05)


# --- cuts ---

@test("ffmpeg with the fifo muxer comes back by itself after a cut and after a hub that was killed, and the page plays on", timeout=120)
async def fifo(t):
    hub, page, _ = await room(t)
    wire = await Wire(hub.port).start()
    encoder = await t.command(line(FIFO, wire.port), KEY=hub.key)
    await plays(page)
    wire.cut()
    await plays(page)
    hub.signal(signal.SIGKILL)
    await hub.exit()
    await hub.start(LONG)
    await page.until("epoch", timeout=LONG)
    await plays(page)
    encoder.signal(signal.SIGINT)
    await encoder.exit()
    assert "Recovery successful" in encoder.said(), encoder.said()
    wire.server.close()


@test("`ffmpeg | sharelink-hub push` goes on after the hub was killed, and says at the end what came", timeout=120)
async def push(t):
    hub, page, _ = await room(t)
    command = replaced(PUSH, ("sharelink-hub push demo", f"{binary()} push --api http://127.0.0.1:{hub.port} demo"))
    encoder = await t.command(line(f"# 127.0.0.1:8090\n{command}", hub.port), KEY=hub.key)
    await plays(page)
    hub.signal(signal.SIGKILL)
    await hub.exit()
    await encoder.says("trying again")
    await hub.start(LONG)
    await page.until("epoch", timeout=LONG)
    await plays(page)
    os.kill(encoder.child("ffmpeg"), signal.SIGINT)
    await encoder.exit()
    await encoder.says("the input has ended: ")


# --- one stream at a time ---

@test("another encoder with the same key takes over from one that stands still", timeout=120)
async def takeover(t):
    hub, page, _ = await room(t)
    first = await t.command(line(LIVE, hub.port), KEY=hub.key)
    await plays(page)
    os.kill(first.process.pid, signal.SIGSTOP)
    while True:
        second = await t.command(line(LIVE, hub.port), KEY=hub.key)
        playing, over = asyncio.ensure_future(plays(page)), asyncio.ensure_future(second.process.wait())
        await asyncio.wait({playing, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if playing.done():
            playing.result()
            break
        # Refused within the first second.
        playing.cancel()
        assert second.process.returncode, second.said()
    os.kill(first.process.pid, signal.SIGCONT)
    assert await first.exit(), first.said()
    await hub.logs("was refused with 409: another stream", 30)
    assert second.process.returncode is None
    await page.until("media", track="video", part="start", timeout=LONG)


@test("an encoder with another token is refused while a stream comes in, and gets in once that has ended", timeout=120)
async def other_token(t):
    hub, page, _ = await room(t)
    token = (await hub.api("POST", "/v1/topics/demo/ingest-tokens", {"ttl_s": 600}))["token"]
    first = await t.command(line(LIVE, hub.port), KEY=hub.key)
    await plays(page)
    other = await t.command(line(LIVE, hub.port), KEY=token)
    assert await other.exit(), other.said()
    await hub.logs("demo: the stream from 127.0.0.1 was refused with 409: another stream", 30)
    assert "Broken pipe" in other.said() or "reset by peer" in other.said(), other.said()
    first.signal(signal.SIGINT)
    await first.exit()
    await t.command(line(LIVE, hub.port), KEY=token)
    await plays(page)


# --- ends ---

@test("the end of a topic ends its stream, and its encoder; opened again, it takes the next one", timeout=120)
async def topic_ends(t):
    hub, page, _ = await room(t)
    encoder = await t.command(line(LIVE, hub.port), KEY=hub.key)
    await plays(page)
    await hub.api("DELETE", "/v1/topics/demo", {"reason": "good night"}, status=204)
    await page.until("end", reason="good night", timeout=LONG)
    assert await encoder.exit(), encoder.said()
    await hub.logs("demo: the stream from 127.0.0.1 was refused with 409: ", 30)
    again = await t.command(line(LIVE, hub.port), KEY=hub.key)
    assert await again.exit() and "HTTP error 409 Conflict" in again.said(), again.said()
    await hub.api("POST", "/v1/topics/demo/open", status=204)
    await page.join(await hub.link("demo"), timeout=LONG)
    encoder = await t.command(line(LIVE, hub.port), KEY=hub.key)
    await plays(page)


@test("a token that is revoked ends its stream and its encoder, and another one gets in at once", timeout=120)
async def revoked(t):
    hub, page, _ = await room(t)
    token = (await hub.api("POST", "/v1/topics/demo/ingest-tokens", {"ttl_s": 600}))["token"]
    encoder = await t.command(line(LIVE, hub.port), KEY=token)
    await plays(page)
    await hub.api("POST", "/v1/revoke", {"token": token, "reason": "over"})
    assert await encoder.exit(), encoder.said()
    await hub.logs("demo: the stream from 127.0.0.1 was refused with 403: the token was revoked", 30)
    again = await t.command(line(LIVE, hub.port), KEY=token)
    assert await again.exit() and "Server returned 403 Forbidden" in again.said(), again.said()
    await t.command(line(LIVE, hub.port), KEY=hub.key)
    await plays(page)


@test("a reload that takes a key away, or its scope, ends its stream and its encoder, and no other", timeout=120)
async def key_removed(t):
    hub, page, _ = await room(t)
    everything, key = row("all", hub.key), "slk_camera"
    other = await t.command(line(LIVE, hub.port, ("/demo/", "/other/")), KEY=hub.key)
    for left, status, why in (([], 401, "the key is not known here"), ([row("camera", key, ["read"])], 403, 'the key "camera" lacks')):
        await hub.reload(api={"keys": [everything, row("camera", key, ["ingest"])]})
        encoder = await t.command(line(LIVE, hub.port), KEY=key)
        await plays(page)
        await hub.reload(api={"keys": [*left, everything]})
        assert await encoder.exit(), encoder.said()
        await hub.logs(f"stream from 127.0.0.1 was refused with {status}: {why}", 30)
        await not_live(hub, audio=False, video=False)
    assert other.process.returncode is None, other.said()
    assert (await hub.api("GET", "/v1/topics/other"))["live"]["video"]


@test("a hub that is asked to end ends its streams at once and cuts nothing off", timeout=120)
async def drained(t):
    hub, page, _ = await room(t)
    encoder = await t.command(line(LIVE, hub.port), KEY=hub.key)
    await plays(page)
    hub.signal(signal.SIGTERM)
    assert await hub.exit(LONG) == 0
    assert "the stream from 127.0.0.1 has ended: the hub ends or restarts" in hub.log() and "cut off" not in hub.log(), hub.log()
    assert await encoder.exit(), encoder.said()


@test("with streams = 1 a second encoder is refused, says so, and gets in after the first", timeout=120)
async def places(t):
    hub, page, _ = await room(t, limits={"streams": 1})
    first = await t.command(line(LIVE, hub.port), KEY=hub.key)
    await plays(page)
    second = await t.command(line(LIVE, hub.port, ("/demo/", "/other/")), KEY=hub.key)
    assert await second.exit(), second.said()
    await hub.logs("other: the stream from 127.0.0.1 was refused with 507: there is no room", 30)
    assert "5XX Server Error" in second.said(), second.said()
    first.signal(signal.SIGINT)
    await first.exit()
    await not_live(hub, audio=False, video=False)
    await t.command(line(LIVE, hub.port), KEY=hub.key)
    await plays(page)


# --- what is refused ---

FRAGMENTS = "-movflags +frag_keyframe+empty_moov+default_base_moof"
MP4 = f"-f mp4 {FRAGMENTS} -frag_duration 100000"
NO_CONTAINER = "neither WebM nor fragmented MP4: send fragmented MP4 (ffmpeg: -f mp4 -movflags +frag_keyframe+"
# What is changed in the command, what the hub's log says, and what ffmpeg does.
REFUSED = {
    "whole": (f"{FRAGMENTS} -frag_duration 100000 ", "", "", "muxer does not support non seekable output"),
    "first": ("+empty_moov", "", "does not begin with fragments: add -movflags +frag_keyframe+empty_moov", ""),
    "offsets": ("+default_base_moof", "", "offsets from the start of a file: add +default_base_moof to ffmpeg's -movflags", ""),
    "group": ("-g 30", "-g 600", "since the last keyframe: send a keyframe each second or two (ffmpeg: -g 30", ""),
    "chunk": ("-frag_duration 100000 ", "", "use shorter fragments (ffmpeg: -frag_duration 200000) or a lower bitrate", ""),
    "mpegts": (MP4, "-f mpegts", NO_CONTAINER, ""),
    "flv": (MP4, "-f flv", NO_CONTAINER, ""),
    "matroska": (MP4, "-f matroska", "don't play V_MPEG4/ISO/AVC in this container: use H.264 with AAC or Opus in MP4 (ffmpeg: -c:v", ""),
    "mjpeg": ("-c:v libx264 -preset veryfast -tune zerolatency -g 30 -pix_fmt yuv420p", "-c:v mjpeg -pix_fmt yuvj420p",
              "browsers don't play mp4v in this container: use H.264 with AAC", ""),
    "key": ("$KEY", "wrong", "401: the key is not known here: see [api] keys", "Server returned 401 Unauthorized"),
}


@test("what pages can't play is refused: the encoder ends with an error, and the hub's log has the remedy", timeout=240)
async def refused(t):
    hub = await t.hub(limits={"group_kib": 64, "chunk_kib": 32})
    turns = asyncio.Semaphore(4)

    async def one(name, old, new, logged, said):
        async with turns:
            encoder = await t.command(line(LIVE, hub.port, (old, new), ("/demo/", f"/{name}/")), KEY=hub.key)
            assert await encoder.exit(2 * LONG), f"{name}: {encoder.said()}"
        if logged:
            # Who has no key is one kind of line, whatever topic it names.
            whose = " a stream from" if name == "key" else f" {name}: the stream from"
            await hub.logs(f"{whose} 127.0.0.1 was refused with ")
            found = [one for one in hub.log().splitlines() if whose in one]
            assert any(logged in one for one in found), f"{name}: {found}"
        assert said in encoder.said(), f"{name}: {encoder.said()}"
    await asyncio.gather(*(one(name, *row) for name, row in REFUSED.items()))


@test("curl prints why a stream of ffmpeg is refused, and what the fifo muxer lacks is said", timeout=120)
async def why(t):
    hub = await t.hub()
    encoder = await t.command(line(WHY, hub.port), KEY=hub.key)
    assert await encoder.exit(), encoder.said()
    assert "add +default_base_moof to ffmpeg's -movflags" in encoder.said(), encoder.said()
    await t.command(line(FIFO, hub.port, ("-flags +global_header ", ""), ("/demo/", "/fifo/")), KEY=hub.key)
    await hub.logs("fifo: the stream from 127.0.0.1 was refused with 422: the recording's header lacks a codec's configuration: let the "
                   "encoder write it there (ffmpeg: -flags +global_header", LONG)
    # It never gives up, but says why where the answer comes before the stream.
    wrong = await t.command(line(FIFO, hub.port, ("$KEY", "wrong")), KEY=hub.key)
    await wrong.says("HTTP error 401 Unauthorized")


# --- through other servers ---

def nginx(t, text, module=""):
    """Starts nginx in one process, with this configuration beside its own paths."""
    paths = "".join(f"{key}_temp_path {t.directory}/{key};" for key in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = t.directory / "nginx.conf"
    config.write_text(f"{module}daemon off; master_process off; pid {t.directory}/pid; events {{}}\n" + text.replace("PATHS", f"{paths} access_log off;"))
    return t.command(f"exec /usr/sbin/nginx -c {config} -p {t.directory} -e stderr")


async def answers(port):
    async with asyncio.timeout(LONG):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                return writer.close()
            except OSError:
                await asyncio.sleep(0.05)


@test("RTMP through nginx: copied, and whoever has no token is refused", timeout=120)
async def rtmp(t):
    hub, page, topic = await room(t)
    port = PORTS.take()
    text = replaced(RTMP, ("listen 1935", f"listen 127.0.0.1:{port}"), (":1935/live", f":{port}/live"), ("127.0.0.1:8090", f"127.0.0.1:{hub.port}"))
    await nginx(t, text, "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;")
    await answers(port)
    token = (await hub.api("POST", "/v1/topics/demo/ingest-tokens", {"ttl_s": 600}))["token"]
    command = replaced(TO_RTMP, ("127.0.0.1:1935", f"127.0.0.1:{port}"))
    stranger = await t.command(line(f"{command} # 127.0.0.1:8090", hub.port, ("live/demo", "live/other")), TOKEN=token)
    await hub.logs("other: the stream from 127.0.0.1 was refused with 403: the token is for the topic \"demo\" alone", 30)
    stranger.signal(signal.SIGINT)
    await stranger.exit()
    encoder = await t.command(line(f"{command} # 127.0.0.1:8090", hub.port), TOKEN=token)
    assert re.fullmatch(r'video/mp4; codecs="avc1\.42[0-9A-F]{4},mp4a\.40\.2"', await plays(page))
    await page.until("media", track="video", part="start", timeout=LONG)
    encoder.signal(signal.SIGINT)
    await encoder.exit()
    got, groups, has_gap = await whole(hub, page, topic)
    assert groups >= 2
    times = await begins_with_keyframes(got)
    assert has_gap or all(0.9 < later - time < 1.1 for time, later in zip(times, times[1:])), times


async def through(t, name):
    """A stream reaches the page while it is sent, for longer than the proxy's own timeouts; and its refusal reaches ffmpeg."""
    hub, page, _ = await room(t)
    port = PORTS.take()
    config = t.directory / name
    if name == "nginx":
        text = replaced(NGINX, ("127.0.0.1:8090", f"127.0.0.1:{hub.port}"))
        short = "proxy_read_timeout 1s; client_body_timeout 60s;"
        proxy = await nginx(t, f"http {{ PATHS server {{ listen 127.0.0.1:{port}; {short}\n{text}}} }}")
    elif name == "haproxy":
        text = replaced(HAPROXY, ("127.0.0.1:8090", f"127.0.0.1:{hub.port}"), ("bind :8443 ssl crt /etc/ssl/api.pem", f"bind 127.0.0.1:{port}"))
        config.write_text(replaced(text, ("timeout server 60s", "timeout server 1s")))
        proxy = await t.command(f"exec /usr/sbin/haproxy -db -f {config}")
    else:
        text = replaced(CADDY, ("127.0.0.1:8090", f"127.0.0.1:{hub.port}"), ("api.example {", f"http://127.0.0.1:{port} {{"))
        config.write_text("{\n    admin off\n    auto_https off\n}\n" + text)
        proxy = await t.command(f"exec caddy run --adapter caddyfile --config {config}", HOME=str(t.directory))
    await answers(port)
    encoder = await t.command(line(LIVE, port), KEY=hub.key)
    await plays(page)
    for _ in range(3):
        await page.until("media", track="video", part="start", timeout=LONG)
    assert encoder.process.returncode is None, encoder.said()
    encoder.signal(signal.SIGINT)
    await encoder.exit()
    await hub.logs("video has ended after", 30)
    assert "broke off" not in hub.log(), hub.log()
    for changed in (("$KEY", "wrong"), ("+default_base_moof", "")):  # each before it has ended by itself
        refused = await t.command(line(LIVE, port, changed, ("-c:v", "-t 20 -c:v")), KEY=hub.key)
        assert await refused.exit(), refused.said()
    await hub.logs("was refused with 401: the key is not known", 30)
    await hub.logs("add +default_base_moof", 30)
    proxy.signal(signal.SIGTERM)


for proxy in ("nginx", "haproxy", "caddy"):
    test(f"a stream through {proxy} as docs/ingest.md says", timeout=120)(lambda t, proxy=proxy: through(t, proxy))

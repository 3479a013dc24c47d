"""The metrics: scraped from a live relay, they show what happened to it, and a scrape delays nothing else."""
import asyncio
import re
import time

import lag
from daemon import ROOT
from harness import PORTS, test
from inbox import SLACK, Mismatch
from test_faults import Room, crowd, processor_s
from websocket import Refused, http

TRACKS = ("state", "messages", "audio", "video")

PLAIN = True


async def scrape(port, timeout=10):
    """A complete scrape: types by family, and values by name with labels."""
    answer = await http(port, "/metrics", timeout=timeout * SLACK)
    assert answer is not None and answer.status == 200, answer
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8", answer.headers
    families, rows, family = {}, {}, None
    for line in answer.body.decode().splitlines():
        if line.startswith("# HELP "):
            family, help_ = line[7:].split(" ", 1)
            assert family not in families and help_.endswith("."), line
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == family, line
            families[name] = kind
        else:
            row, value = re.fullmatch(r'([a-z_]+(?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})?) (-?[0-9.]+)', line).groups()
            assert row.startswith(family) and row not in rows, line
            rows[row] = float(value)
    return families, rows


async def measured(t, auto=None, **changes):
    """A relay with metrics at `port`."""
    port = PORTS.take()
    daemon, business, uplink = await t.relay(auto=auto, metrics={"listen": f"127.0.0.1:{port}"}, **changes)
    return daemon, business, uplink, port


async def settled(port, row, value):
    """Waits until a row has a value."""
    until = time.monotonic() + 5 * SLACK
    while True:
        _, rows = await scrape(port)
        if rows[row] == value:
            return rows
        if time.monotonic() > until:
            raise Mismatch(f"{row} is {rows[row]}, expected {value}")
        await asyncio.sleep(0.05)


def named(rows, name):
    return {row[len(name):]: value for row, value in rows.items() if row == name or row.startswith(name + "{")}


@test("what the metrics count is what happened: deliveries by track, gaps, refusals, denials, closes, reconnects", plain=False)
async def counts(t):
    daemon, business, uplink, port = await measured(t, limits={"pages": 4})
    families, before = await scrape(port)
    link = t.link()
    pages = [await t.joined(daemon, uplink, link)]
    for _ in range(2):
        pages.append(await t.page(daemon))
        await pages[-1].join(link)
    uplink.message(7, *range(1, 6))
    uplink.state(7, 1)
    uplink.media(7, "video", "init 1", "start 2", "continue 3")
    for page in pages:
        await page.reached(7, "message", 5)
        await page.reached(7, "state", 1)
        await page.reached(7, "video", 3)
    rows = await settled(port, 'sharelinkd_deliveries_total{track="video"}', 9)
    assert [rows[f'sharelinkd_publications_total{{track="{track}"}}'] for track in TRACKS] == [1, 5, 0, 3], rows
    assert [rows[f'sharelinkd_deliveries_total{{track="{track}"}}'] for track in TRACKS] == [3, 15, 0, 9], rows
    sent = [rows[f'sharelinkd_delivered_bytes_total{{track="{track}"}}'] for track in TRACKS]
    assert sent[1] > sent[0] > 0 and sent[2] == 0 and sent[3] >= 3 * len("video init 1" "video start 2" "video continue 3"), sent
    assert sum(sent) < rows["sharelinkd_sent_bytes_total"], "notices are beyond the tracks"
    assert rows["sharelinkd_pages"] == 3 and rows["sharelinkd_pages_limit"] == 4 and rows['sharelinkd_table_used{table="pages"}'] == 3
    assert rows["sharelinkd_subscriptions_asked_total"] == rows["sharelinkd_subscriptions_granted_total"] == 3
    # Two messages are missing, one more is not JSON: a gap of three for each page.
    uplink.message(7, 8)
    for page in pages:
        await page.reached(7, "message", 8)
    rows = await settled(port, 'sharelinkd_missed_publications_total{track="messages"}', 6)
    assert rows['sharelinkd_gaps_total{track="messages"}'] == 3 and rows['sharelinkd_gaps_total{track="state"}'] == 0
    uplink.publish(7, "messages", 9, "whole", b"no JSON")
    uplink.publish(7, "messages", 8, "whole")
    uplink.publish(99, "messages", 1, "whole")
    await uplink.barrier()
    _, rows = await scrape(port)
    assert named(rows, "sharelinkd_publications_dropped_total") == {'{cause="unusable"}': 1, '{cause="superfluous"}': 1, '{cause="unknown_topic"}': 1}
    # The fourth page takes the last place, the fifth gets none; another has an origin that is not
    # allowed.
    last = await t.page(daemon)
    for expected, options in ((503, {}), (403, {"origin": "https://elsewhere.example"})):
        try:
            await t.page(daemon, **options)
            raise Mismatch(f"expected {expected}")
        except Refused as refused:
            assert refused.response.status == expected, refused.response
    dead = t.link()
    last.subscribe(dead)
    await uplink.deny_link(dead)
    await last.expect("denied")
    for _ in range(3):
        last.text("garbage")
    assert (await last.gone())["code"] == 1008
    await pages[2].close()
    rows = await settled(port, "sharelinkd_pages", 2)
    assert named(rows, "sharelinkd_pages_refused_total") == {'{cause="full"}': 1, '{cause="address"}': 0, '{cause="draining"}': 0, '{cause="origin"}': 1}
    assert rows['sharelinkd_http_answers_total{code="101"}'] == rows["sharelinkd_pages_opened_total"] == 4
    assert rows["sharelinkd_subscriptions_denied_total"] == 1 and rows["sharelinkd_page_faults_total"] == 3
    closes = named(rows, "sharelinkd_pages_closed_total")
    assert closes['{code="1008"}'] == closes['{code="1000"}'] == 1 and sum(closes.values()) == 2, closes
    # The uplink is lost and returns.
    business.auto = lambda uplink, subscribe: uplink.accept(subscribe)
    uplink.drop()
    uplink = await business.uplink()
    rows = await settled(port, "sharelinkd_uplink_up", 1)
    assert rows["sharelinkd_uplink_connections_total"] == 2 and rows["sharelinkd_uplink_losses_total"] == 1
    assert rows["sharelinkd_uplink_dials_total"] >= 2 and rows['sharelinkd_uplink_state{state="up"}'] == 1
    assert sum(named(rows, "sharelinkd_uplink_state").values()) == 1
    assert rows["sharelinkd_uplink_received_frames_total"] >= 20 and rows["sharelinkd_uplink_received_bytes_total"] > 200
    assert rows["sharelinkd_uplink_sent_frames_total"] >= 6 and rows["sharelinkd_uplink_sent_bytes_total"] > 100
    # No counter decreases.
    for row, value in rows.items():
        family = re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", row)
        if families.get(family, "counter") != "gauge" and row in before:
            assert value >= before[row], row


@test("the latency's histogram adds up, and a page that is slow makes no delivery look late", waits=True, plain=False)
async def latency(t):
    room = Room()
    daemon, business, uplink, port = await measured(t, auto=room.admit)
    viewers = await crowd(t, daemon, room, t.link(), 20)
    name = "sharelinkd_delivery_latency_seconds"
    _, before = await scrape(port)
    for _ in range(50):
        room.say()
        for viewer in viewers:
            await viewer.reached(room.count, 5 * SLACK)
    families, rows = await scrape(port)
    assert families[name] == "histogram"
    buckets = [(float(row.split('"')[1].replace("+Inf", "inf")), value) for row, value in rows.items() if row.startswith(name + "_bucket")]
    assert buckets == sorted(buckets) and buckets[-1][0] == float("inf"), buckets
    counts = [count for _, count in buckets]
    assert counts == sorted(counts) and counts[-1] == rows[name + "_count"], buckets
    timed = rows[name + "_count"] - before[name + "_count"]
    assert timed == 50 * 20, f"{timed} were timed of 50 publications to 20 pages"
    mean = (rows[name + "_sum"] - before[name + "_sum"]) / timed
    assert mean < 0.2 * SLACK, f"{mean} s from arrival to socket"
    # One page reads nothing for two seconds, and then catches up.
    slow = await t.page(daemon, receive_buffer=4096)
    await slow.join(viewers[0].link)
    slow.reading.clear()
    full = rows["sharelinkd_socket_full_total"]
    began, sequence = time.monotonic(), 0
    while rows["sharelinkd_socket_full_total"] == full:
        assert time.monotonic() - began < 20 * SLACK, "the page's socket takes everything"
        # One by one, so that the ring does not overtake the frame that the page is inside.
        sequence += 1
        room.uplink.state(7, sequence, b'"%s"' % (b"x" * 4000))
        await room.uplink.barrier()
        _, rows = await scrape(port)
    await asyncio.sleep(2)
    with lag.within(1):  # otherwise the others' are late too
        late = rows[name + "_count"] - rows[name + '_bucket{le="1"}']
        sequence += 1
        room.uplink.state(7, sequence, b'"the last"')
        slow.reading.set()
        await slow.reached(7, "state", sequence, 40 * SLACK)
        _, rows = await scrape(port)
        assert rows[name + "_count"] - rows[name + '_bucket{le="1"}'] == late, "a slow page's deliveries were timed"


@test("docs/metrics.md and the relay have the same metrics")
async def listed(t):
    daemon, business, uplink, port = await measured(t)
    families, rows = await scrape(port)
    manual = dict(re.findall(r"^\| `([a-z_]+)` \| ([a-z]+) \|", (ROOT / "docs" / "metrics.md").read_text(), re.M))
    assert manual == families, {name: (manual.get(name), families.get(name)) for name in manual.keys() ^ families.keys()}
    assert 0 < rows["process_open_fds"] < rows["process_max_fds"] and rows["process_resident_memory_bytes"] > 1 << 20
    assert abs(rows["process_start_time_seconds"] - time.time()) < 120, rows["process_start_time_seconds"]
    assert sum(value for row, value in rows.items() if row.startswith("sharelinkd_build_info{version=")) == 1
    link = t.link()
    await t.joined(daemon, uplink, link)
    text = (await http(port, "/metrics")).body.decode()
    assert link[:5] not in text and "127.0.0" not in text, "the metrics tell of a single page or link"


@test("GET and HEAD of /metrics are answered, nothing else, and on their own port alone; where that is taken the relay does not start")
async def answered(t):
    daemon, business, uplink, port = await measured(t)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"HEAD /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await asyncio.wait_for(reader.read(), 5 * SLACK)
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n") and int(re.search(rb"Content-Length: (\d+)", head)[1]) > 5000, head
    for path in ("/", "/metrics/", "/healthz", "/s/link", "/ws", "/sharelink.js"):
        assert (await http(port, path)).status == 404, path
    assert (await http(port, "/metrics", method="POST")).status == 405
    assert (await http(port, "", raw=b"no http\r\n\r\n")).status == 400
    assert (await http(port, "", raw=b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n")).status == 431
    assert (await http(daemon.port, "/metrics")).status == 404, "pages can't read them"
    assert "beyond this machine" not in daemon.log() and f"http://127.0.0.1:{port}/metrics" in daemon.log()
    taken = await t.daemon([business.address], metrics={"listen": f"127.0.0.1:{port}"}).spawn()
    assert await taken.exit() == 1 and "check metrics.listen" in taken.log(), taken.log()


@test("a scraper that does not read, and a flood of them, hold up neither pages nor the next scrape", timeout=130, crowded=True)
async def floods(t):
    room = Room()
    daemon, business, uplink, port = await measured(t, auto=room.admit)
    viewers = await crowd(t, daemon, room, t.link(), 50)
    stuck = []
    for at in range(6):  # they request and don't read, or don't even request
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.transport.pause_reading()
        if at % 2:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        stuck.append(writer)
    await scrape(port, timeout=15)  # a scraper that does not read loses its place

    async def flood():
        while True:
            try:
                await http(port, "/metrics", timeout=5)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, AssertionError):
                await asyncio.sleep(0)

    floods = [asyncio.ensure_future(flood()) for _ in range(20)]
    worst = 0
    for _ in range(30):
        began = time.monotonic()
        room.say()
        for viewer in viewers:
            await viewer.reached(room.count, 5 * SLACK)
        worst = max(worst, time.monotonic() - began - lag.lost(began))
        await asyncio.sleep(0.05)
    for task in floods:
        task.cancel()
    assert worst < 1.5 * SLACK, f"a message took {worst:.2f} s to fifty pages during the flood"
    for writer in stuck:
        writer.close()
    await asyncio.sleep(1.5)
    quiet = processor_s(daemon)
    _, rows = await scrape(port)
    await asyncio.sleep(1)
    spent = processor_s(daemon) - quiet
    assert spent < 0.3, f"the relay spins after the flood: {spent:.2f} s"
    assert rows["process_open_fds"] < 50 + 40 and not any(viewer.gaps or viewer.returns for viewer in viewers), rows["process_open_fds"]

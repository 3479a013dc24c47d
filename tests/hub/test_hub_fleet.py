"""Faults under load: a real hub, a real relay and 1 000 pages, while a back end publishes."""
import asyncio
import os
import secrets
import signal

from harness import test
from hub import Client
from inbox import SLACK, Mismatch

PAGES = int(os.environ.get("HUB_PAGES", "1000"))
TOPIC = "room"
INTERVAL = 0.2  # s between two messages
LONG = 60 * SLACK


class Publisher:
    """Publishes a number each `INTERVAL`, and goes on whatever happens to the hub."""

    def __init__(self, hub):
        self.client, self.acknowledged, self.failures, self.next = Client(hub), [], 0, 0
        self.task = asyncio.ensure_future(self.run())

    async def run(self):
        while True:
            await self.publish()
            await asyncio.sleep(INTERVAL)

    async def publish(self):
        self.next += 1
        try:
            status, answer = await self.client.message(TOPIC, {"k": self.next})
        except (OSError, EOFError):
            self.failures += 1
            return
        if status != 200:
            raise Mismatch(f"message {self.next}: {status} {answer}")
        self.acknowledged.append((answer["epoch"], answer["sequence"], self.next))

    async def until(self, count):
        """Waits for this many more acknowledged messages."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(LONG):
            while len(self.acknowledged) < wanted:
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.02)

    async def stop(self):
        """Stops; returns the last message's epoch and sequence."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.client.close()  # a request may be under way
        before = len(self.acknowledged)
        async with asyncio.timeout(LONG):
            while len(self.acknowledged) == before:
                await self.publish()
        self.client.close()
        return self.acknowledged[-1][:2]


class World:
    def __init__(self, t):
        self.t, self.pages = t, []

    async def start(self, **sections):
        t = self.t
        self.hub = await t.hub(**sections)
        self.link = await self.hub.link(TOPIC, replay=1000)
        self.box = await t.box(self.hub)
        self.publisher = Publisher(self.hub)
        await self.open([None] * PAGES)
        await self.publisher.until(3)
        return self

    async def open(self, places):
        """Opens a page for each place, which is the page's `since`."""
        turns = asyncio.Semaphore(40)

        async def one(since):
            async with turns:
                page = await self.t.page(self.box)
                await page.join(self.link, since, timeout=LONG)
                return page
        self.pages = await asyncio.gather(*map(one, places))

    async def settled(self):
        """Stops publishing, and waits until each page has the last message."""
        epoch, sequence = await self.publisher.stop()
        views = [View(page) for page in self.pages]
        async with asyncio.timeout(LONG):
            for view in views:
                view.read()
                while (epoch, sequence) not in view.messages:
                    self.t.check()
                    await asyncio.sleep(0.02)
                    view.read()
        self.t.check()
        return views, epoch


class View:
    """What a page has seen, by epoch."""

    def __init__(self, page):
        self.page, self.at, self.epoch = page, 0, None
        self.messages, self.gaps, self.epochs, self.others = {}, [], [], []
        self.read()

    def read(self):
        for _, event in self.page.events.history[self.at:]:
            kind = event["type"]
            if kind in ("subscribed", "epoch"):
                self.epoch = event["epoch"]
                self.epochs.append(self.epoch)
            elif kind == "message":
                self.messages[self.epoch, event["sequence"]] = event["data"]["k"]
            elif kind == "gap":
                self.gaps.append((self.epoch, event["from"], event["to"]))
            elif kind != "alive":
                self.others.append("up" if event.get("up") else "down" if kind == "uplink" else kind)
        self.at = len(self.page.events.history)

    def demand(self, acknowledged):
        """Each of these came, as what it is, and none of them is called a gap."""
        for epoch, sequence, k in acknowledged:
            if self.messages.get((epoch, sequence)) != k:
                raise Mismatch(f"{self.page.name}: message {k}, acknowledged as {sequence} of epoch {epoch}, came as "
                               f"{self.messages.get((epoch, sequence))}; gaps {self.gaps}; epochs {self.epochs}")


def one_content(views):
    known = {}
    for view in views:
        for place, k in view.messages.items():
            if known.setdefault(place, k) != k:
                raise Mismatch(f"{place} is {known[place]} on one page and {k} on another")


async def restarted(t, number, **sections):
    """The hub ends by this signal and starts again. Returns its exit code."""
    world = await World(t).start(**sections)
    old = await world.hub.epoch(TOPIC)
    code = await ended(world, number)
    await asyncio.sleep(0.5)
    await world.hub.start(30 * SLACK)
    await world.publisher.until(10)
    views, epoch = await world.settled()
    assert int(epoch) != old
    for view in views:
        if view.epochs != [str(old), epoch]:
            raise Mismatch(f"{view.page.name} saw the epochs {view.epochs}, not {old} and {epoch}; {view.others}")
        if view.others != ["down", "up"]:
            raise Mismatch(f"{view.page.name} saw {view.others}")
        view.demand(m for m in world.publisher.acknowledged if m[0] == epoch)
        if any(gap[0] == epoch for gap in view.gaps):
            raise Mismatch(f"{view.page.name} saw gaps in the new epoch: {view.gaps}")
    one_content(views)
    assert world.publisher.failures
    return code, views, [m for m in world.publisher.acknowledged if m[0] == str(old)]


async def ended(world, number):
    world.hub.signal(number)
    return await world.hub.exit()


@test("a hub that is killed and starts again: each page is told the new epoch, and misses nothing from then on", timeout=240, crowded=True)
async def killed(t):
    await restarted(t, signal.SIGKILL)


@test("the same where topics have their numbers by a key in a file", timeout=240, crowded=True)
async def killed_with_key(t):
    (t.directory / "fleet").write_text(secrets.token_hex(32) + "\n")
    await restarted(t, signal.SIGKILL, topics={"fleet_key_file": "fleet"})


@test("a hub that is asked to end exits with 0, and what it acknowledged before came to each page", timeout=240, crowded=True)
async def terminated(t):
    code, views, before = await restarted(t, signal.SIGTERM)
    assert code == 0, code
    for view in views:
        view.demand(before)


@test("reloads under load lose no request, no message and no uplink", timeout=240, crowded=True)
async def reloaded(t):
    world = await World(t).start()
    for n in range(10):
        await world.hub.reload(log={"level": "debug" if n % 2 else "info"})
        await world.publisher.until(1)
    views, epoch = await world.settled()
    assert not world.publisher.failures
    for view in views:
        view.demand(world.publisher.acknowledged)
        assert (view.epochs, view.gaps, view.others) == ([epoch], [], []), (view.epochs, view.gaps, view.others)


@test("a relay that is killed: pages come back with their places, and miss nothing", timeout=240, crowded=True)
async def relay_killed(t):
    world = await World(t).start()
    world.box.signal(signal.SIGKILL)
    await world.box.exit()
    await asyncio.gather(*(page.gone(LONG) for page in world.pages))
    first = [View(page) for page in world.pages]
    await world.publisher.until(5)
    await world.box.start(30 * SLACK)
    places = [(view.epoch, max(sequence for _, sequence in view.messages) + 1) for view in first]
    await world.open(places)
    views, epoch = await world.settled()
    assert not world.publisher.failures
    for before, view in zip(first, views):
        if (view.epochs, view.gaps) != ([epoch], []):
            raise Mismatch(f"{view.page.name} saw the epochs {view.epochs}, the gaps {view.gaps}")
        view.messages.update(before.messages)
        # Its first connection may have begun with a replay that a late page gets: all of it.
        view.demand(world.publisher.acknowledged)
    one_content(views)
    rows = (await world.hub.api("GET", "/v1/fleet"))["relays"]
    assert len(rows) == 1, rows


@test("a page that changes from one relay to another loses nothing, and the audience is that of both", timeout=120)
async def two_relays(t):
    hub = await t.hub()
    one, two = await t.box(hub), await t.box(hub)
    link = await hub.link(TOPIC)
    stays, page = await t.page(one), await t.page(one)
    for joined in (stays, page):
        topic = (await joined.join(link))["topic"]
    for n in range(1, 6):
        await hub.message(TOPIC, {"n": n})
    assert await page.track(topic, "messages", 5) == [f"message {n}" for n in range(1, 6)]
    epoch = await hub.epoch(TOPIC)
    for relay in (two, one, two):
        await page.leave()
        n = await hub.message(TOPIC, {"n": n + 1})
        n = await hub.message(TOPIC, {"n": n + 1})
        page = await t.page(relay)
        await page.join(link, (epoch, n - 1), epoch=str(epoch), topic=topic)
        n = await hub.message(TOPIC, {"n": n + 1})
        assert await page.track(topic, "messages", n) == [f"message {n - 2}", f"message {n - 1}", f"message {n}"]
    assert await stays.track(topic, "messages", n) == [f"message {k}" for k in range(1, n + 1)]
    async with asyncio.timeout(LONG):
        while (await hub.api("GET", f"/v1/topics/{TOPIC}"))["audience"]["pages"] != 2:
            await asyncio.sleep(0.05)
    # What is revoked ends on both.
    await hub.api("POST", "/v1/revoke", {"link": link, "reason": "over"})
    for watching in (stays, page):
        await watching.until("end", topic=topic, reason="over")

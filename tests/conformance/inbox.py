"""A queue of received items with waiting; and the exception that tests raise."""
import asyncio
import os
import time

SLACK = float(os.environ.get("CONFORMANCE_SLACK", "1"))  # multiplies every timeout, for slow machines
PATIENCE = 6.0 * SLACK


class Mismatch(AssertionError):
    pass


class Mailbox:
    def __init__(self, owner):
        self.owner, self.items, self.history, self.changed = owner, [], [], asyncio.Event()

    def put(self, item):
        self.items.append(item)
        self.history.append((time.monotonic(), item))
        self.changed.set()

    async def take(self, wanted, expected, timeout=PATIENCE):
        """Removes and returns the first item that `wanted` accepts; the others stay."""
        until = time.monotonic() + timeout
        while True:
            for index, item in enumerate(self.items):
                if wanted(item):
                    return self.items.pop(index)
            await self.change(until, expected, timeout)

    async def next(self, expected, timeout=PATIENCE):
        return await self.take(lambda _: True, expected, timeout)

    async def change(self, until, expected, timeout):
        self.changed.clear()
        try:
            async with asyncio.timeout(max(0.001, until - time.monotonic())):  # not wait_for: see http() in websocket.py
                await self.changed.wait()
        except asyncio.TimeoutError:
            # Where the whole machine stood still, what came meanwhile is read behind the timer.
            await asyncio.sleep(0.05)
            if not self.changed.is_set():
                raise Mismatch(f"{self.owner}: expected {expected} within {timeout:.1f} s; seen and not yet taken: "
                               f"{brief(self.items)}; all: {brief([i for _, i in self.history][-12:])}") from None


def brief(value):
    text = repr(value)
    return text if len(text) < 1500 else text[:750] + " … " + text[-750:]

"""How late the suite's own loop is: all tests share it, and the machine with others. While it stands still, time passes for the relay
alone, which says nothing about the relay. Limits that this could break are lengthened by what was lost; a test whose chance has gone
by meanwhile begins anew."""
import asyncio
import contextlib
import time

STEP = 0.05  # s from one look to the next
LATE = 0.01  # s that are not worth noting

_stalls = []  # (when it was noticed, how late the loop was)
_due, _task = None, None


class Stalled(Exception):
    """The loop stood still for longer than the test could bear."""


def watch():
    """Begins to watch the running loop, once."""
    global _task
    if _task is None or _task.get_loop() is not asyncio.get_running_loop():
        _task = asyncio.ensure_future(_watch())


async def _watch():
    global _due
    while True:
        _due = time.monotonic() + STEP
        await asyncio.sleep(STEP)
        now = time.monotonic()
        if now - _due > LATE:
            _stalls.append((now, now - _due))


def stalls(since):
    """How late the loop was at each time since then, the running one with it."""
    found, now = [], time.monotonic()
    if _due is not None and now > _due:
        found.append(now - max(_due, since))
    for at, late in reversed(_stalls):
        if at <= since:
            break
        found.append(min(late, at - since))
    return found


def lost(since):
    """The seconds that were lost since then."""
    return sum(stalls(since))


@contextlib.contextmanager
def within(seconds):
    """What is inside has so long before the relay rightly does something else. Where it fails and half of that was lost, the test begins anew."""
    began = time.monotonic()
    try:
        yield
    except Exception as error:
        if lost(began) > seconds / 2:
            raise Stalled(f"{lost(began):.1f} of {seconds:.0f} s were lost") from error
        raise

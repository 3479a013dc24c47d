"""How late the suite's own loop is: all tests share it, and the machine with others. While it stalls, time passes only for
the relay. Time limits are extended by the lost time; a test that missed its moment restarts."""
import asyncio
import contextlib
import time

STEP = 0.05  # s between two measurements
LATE = 0.01  # s that are ignored

_stalls = []  # (time, how late the loop was)
_due, _task = None, None


class Stalled(Exception):
    """The loop stalled for longer than the test allows."""


def watch():
    """Starts measuring the running loop, once."""
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
    """How late the loop was at each time since then, including now."""
    found, now = [], time.monotonic()
    if _due is not None and now > _due:
        found.append(now - max(_due, since))
    for at, late in reversed(_stalls):
        if at <= since:
            break
        found.append(min(late, at - since))
    return found


def lost(since):
    """The seconds lost since then."""
    return sum(stalls(since))


@contextlib.contextmanager
def within(seconds):
    """The body must finish within `seconds`, before the relay rightly does something else. If it fails and half of that time
    was lost, the test restarts."""
    began = time.monotonic()
    try:
        yield
    except Exception as error:
        if lost(began) > seconds / 2:
            raise Stalled(f"{lost(began):.1f} of {seconds:.0f} s were lost") from error
        raise

"""The argument `t` of a test: makes daemons, business servers and pages, and cleans up afterwards."""
import asyncio
import os
import pathlib
import random
import string
import sys
import tempfile
import time

import certificates
import lag
import tls
from business import Business
from daemon import Daemon, Ports
from inbox import SLACK, Mismatch
from page import open_page
from websocket import Refused

TESTS = []
PORTS = Ports()
SEED = os.environ.get("CONFORMANCE_SEED") or str(random.SystemRandom().randrange(10**6))  # of all random numbers; runs print it
TRIES = 5  # of a test that restarts because the loop stalled


AUTHORITY = None  # in a run over TLS


def test(sentence, waits=0, timeout=60, crowded=False, plain=None):
    """Registers a test under the sentence of the protocol that it proves. `waits`: it mostly sleeps, for about this many
    seconds (True: a few), and runs beside the others. `crowded`: it keeps the suite's own loop busy, so that no other such
    test runs beside it. `plain`: it is about TCP, plain HTTP or another port, so it has no place in a run over TLS. A file
    says by `PLAIN` that its tests are so, or by `TLS` that they need TLS."""
    def register(function):
        module = sys.modules[function.__module__]
        name = f"{function.__module__.replace('test_', '')}: {sentence}"
        is_plain = getattr(module, "PLAIN", False) if plain is None else plain
        runs = {"tls"} if getattr(module, "TLS", False) else {"plain"} if is_plain else {"plain", "tls"}
        TESTS.append((name, function, waits, max(130, timeout) if waits else timeout, crowded, runs))
        return function
    return register


class Test:
    def __init__(self, name):
        self.name, self.faults, self.daemons, self.businesses, self.pages, self.links = name, [], [], [], [], []
        self.random, self.sources = random.Random(f"{SEED}:{name}"), set()
        if AUTHORITY:
            self.line = tls.Line(AUTHORITY, self.random.choice(tls.SUITES))
        self.folder = tempfile.TemporaryDirectory(prefix="sl")
        self.directory = pathlib.Path(self.folder.name)

    def broken(self, fault):
        """Records a violated invariant; the test fails at its next check, at the latest at its end."""
        self.faults.append(fault)

    def check(self):
        if self.faults:
            raise Mismatch("; ".join(self.faults[:5]))

    def link(self, size=22):
        """A new random link; the log is searched for it afterwards. Its secret part begins with a digit, never with a dot,
        which would look like the dots that replace it in a log."""
        letters = string.ascii_letters + string.digits + "-_.~"
        draw = self.random
        link = (draw.choice(string.ascii_letters) + "".join(draw.choices(letters, k=3)) + draw.choice(string.digits) + "".join(draw.choices(letters, k=size)))[:size]
        self.links.append(link)
        return link

    def source(self):
        """A loopback address for one page, since a relay may limit the rate for each address."""
        while True:
            source = f"127.{self.random.randint(1, 254)}.{self.random.randint(0, 255)}.{self.random.randint(2, 254)}"
            if source not in self.sources:
                self.sources.add(source)
                return source

    def path(self, name):
        return str(self.directory / name)

    async def business(self, **options):
        if certificates.everywhere():
            options.setdefault("tls", certificates.certificates().server("business", "ca"))
        options["tls"] = options.get("tls") or None
        if "unix" not in options and "port" not in options:
            options["port"] = PORTS.take()
        business = Business(self, **options)
        self.businesses.append(business)
        return await business.start()

    def sections(self, addresses, port, **changes):
        """A configuration; `changes` by section, or by key of [uplink]."""
        sections = {
            "pages": {"listen": f"127.0.0.1:{port}", "origins": ["https://share.example"]},
            "uplink": {"addresses": addresses, "linger_s": 30},
            "log": {"level": "info"},
        }
        for key, value in changes.items():
            if isinstance(value, dict):
                sections.setdefault(key, {}).update(value)
            else:
                sections["uplink"][key] = value
        if certificates.everywhere():
            made = certificates.certificates()
            sections["uplink.tls"] = {"ca_file": made["ca.pem"], "name": "business.example",
                                      "certificate_file": made["box.pem"], "key_file": made["box.key"]}
        return sections

    def daemon(self, addresses=(), text=None, notify=True, **changes):
        port, plain_port, name = PORTS.take(), None, f"d{len(self.daemons)}"
        sections = self.sections(list(addresses), port, **changes)
        if AUTHORITY and text is None:
            plain_port = PORTS.take()
            sections["pages"]["listen"] = f"127.0.0.1:{plain_port}"
            sections["tls"] = AUTHORITY.section(port, **changes.get("tls", {}))
            tls.LINES[port] = self.line
        daemon = Daemon(self, name, port, sections, text, notify, plain_port)
        self.daemons.append(daemon)
        return daemon

    async def relay(self, auto=None, **changes):
        """A business server, a daemon, and the uplink between them after its handshake."""
        business = await self.business()
        business.auto = auto
        daemon = await self.daemon([business.address], **changes).start()
        return daemon, business, await business.uplink()

    async def page(self, daemon, source=None, **options):
        page = await open_page(self, f"page {len(self.pages) + 1}", daemon.port, source=source or self.source(), **options)
        self.pages.append(page)
        return page

    async def comes_from(self, daemon, origin):
        """Whether a page of this origin is admitted rather than refused with 403."""
        try:
            await self.page(daemon, origin=origin)
            return True
        except Refused as refused:
            assert refused.response.status == 403, refused
            return False

    async def joined(self, daemon, uplink, link, topic=7, since=None, **grant):
        """A page with a subscription that the business server accepted."""
        page = await self.page(daemon)
        page.subscribe(link, since)
        ask = await uplink.expect("Subscribe", link=link)
        uplink.accept(ask, topic=topic, **grant)
        if not grant.get("shared", True) and not ask.address:
            # The request for the whole link admits no page: now by this page's name.
            uplink.accept(await uplink.expect("Subscribe", link=link), topic=topic, **grant)
        await page.expect("subscribed", topic=topic)
        return page

    async def close(self):
        for page in self.pages:
            page.abort()
        for business in self.businesses:
            business.stop()
        for daemon in self.daemons:
            await daemon.end()
            log = daemon.log()
            for link in self.links:
                if len(link) > 4 and link[:5] in log:
                    self.broken(f"the log shows more than four bytes of the link {link}")
        for fault in self.line.faults if AUTHORITY else ():
            self.broken(f"TLS: {fault}")

    def logs(self):
        return "\n".join(f"--- log of {d.config.name}\n{d.log()[-6000:]}" for d in self.daemons)


async def run(name, function, timeout):
    """(fault or None, logs)"""
    lag.watch()
    for attempt in range(TRIES):
        began = time.monotonic()
        fault, logs, stalled = await once(name, function, timeout)
        if not stalled or attempt == TRIES - 1:
            break
        print(f"     once more: {name}: {fault}", flush=True)
    late = lag.stalls(began)
    if fault is not None and late:
        fault += f"\nthe suite's own loop was late by {sum(late):.1f} s meanwhile, at worst by {max(late):.2f} s"
    return fault, logs


async def once(name, function, timeout):
    """(fault or None, logs, whether to restart the test)"""
    t, fault, stalled = Test(name), None, False
    try:
        await asyncio.wait_for(function(t), timeout * SLACK)
    except asyncio.TimeoutError:
        fault = f"not done after {timeout * SLACK} s"
    except lag.Stalled as error:
        fault, stalled = str(error), True
    except Exception as error:  # any exception is a failure of the test
        fault = describe(error)
    try:
        await t.close()
    except Exception as error:
        t.broken(describe(error))
    if t.faults:
        fault, stalled = "\n".join(filter(None, [fault] + ["broken promise: " + f for f in t.faults[:6]])), False
    logs = t.logs()
    t.folder.cleanup()
    return fault, logs, stalled


def describe(error):
    frames, traceback = [], error.__traceback__
    while traceback:
        frames.append(f"{os.path.basename(traceback.tb_frame.f_code.co_filename)}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return f"{type(error).__name__ if not isinstance(error, Mismatch) else 'Mismatch'}: {error}\n  at {' < '.join(reversed(frames[1:]))}"

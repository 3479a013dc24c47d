"""The card of a pasted link: requests before any page watches, their cost, and what a card never shows."""
import asyncio
import time

import lag
import tls
from harness import test
from inbox import SLACK
from websocket import http, read_head

BROWSER = {"Sec-Fetch-Dest": "document"}
STATE = '{"title":"Tonight <live>","description":"two\\nlines","cover":"https://pic.example/a.jpg"}'


async def crawl(daemon, link, extra=None):
    answer = await http(daemon.port, f"/s/{link}", headers=extra)
    assert answer.status == 200, answer
    return answer.body.decode()


def card(page):
    return "og:title" in page


async def waits(up, link):
    """The Subscribe of a preview."""
    return await up.expect("Subscribe", link=link, address="", origin="", since=None)


@test("a crawler that fetches a link which nobody watches gets its card, and leaves no topic and no audience behind")
async def first(t):
    daemon, business, up = await t.relay(pages={"url": "https://share.example/"})
    link = t.link()
    asked = asyncio.ensure_future(crawl(daemon, link))
    up.accept(await waits(up, link))
    up.state(7, 1, STATE)
    page = await asked
    for tag in ('<title>Tonight &lt;live&gt;</title>', '<meta property="og:title" content="Tonight &lt;live&gt;">',
                '<meta property="og:description" content="two lines">', '<meta property="og:type" content="website">',
                '<meta property="og:image" content="https://pic.example/a.jpg">',
                '<meta name="twitter:card" content="summary_large_image">',
                f'<meta property="og:url" content="https://share.example/s/{link}">'):
        assert tag in page, (tag, page)
    await up.expect("Unsubscribe", topic=7)
    assert up.seen("Audience") == 0, "nobody watches"


@test("og:url is never made from the request's Host")
async def no_url(t):
    daemon, business, up = await t.relay()
    link = t.link()
    asked = asyncio.ensure_future(crawl(daemon, link))
    up.accept(await waits(up, link))
    up.state(7, 1, STATE)
    page = await asked
    assert card(page) and "og:url" not in page, page


@test("a herd of crawlers shares one request, and a page's request too")
async def herd(t):
    daemon, business, up = await t.relay()
    link = t.link()
    asked = [asyncio.ensure_future(crawl(daemon, link)) for _ in range(8)]
    ask = await waits(up, link)
    page = await t.page(daemon)
    page.subscribe(link)
    await asyncio.sleep(0.2)
    up.accept(ask)
    up.state(7, 1, STATE)
    for one in asked:
        assert card(await one)
    await page.expect("subscribed", topic=7)
    await page.expect("state", sequence=1)
    await up.audience(7, 1)
    assert up.seen("Subscribe") == 1
    await up.none("Unsubscribe", 0.5)  # a page subscribed: now it is an ordinary topic
    assert card(await crawl(daemon, link)), "what is held is answered at once"
    assert up.seen("Subscribe") == 1


@test("denied, not shared, of no time and unanswered: 200 each, with the same bytes, and no card")
async def none_of_them(t):
    daemon, business, up = await t.relay()
    plain = await crawl(daemon, t.link(), BROWSER)
    assert not card(plain) and 'name="robots" content="noindex"' in plain, plain
    for answer in (lambda ask: up.deny(ask, "who asks?"), lambda ask: up.accept(ask, shared=False),
                   lambda ask: (up.accept(ask, ttl_s=0), up.state(7, 1, STATE))):
        link = t.link()
        asked = asyncio.ensure_future(crawl(daemon, link))
        answer(await waits(up, link))
        assert await asked == plain
    link, began = t.link(), time.monotonic()
    asked = asyncio.ensure_future(crawl(daemon, link))
    await waits(up, link)
    assert await asked == plain
    took = time.monotonic() - began
    assert 1.4 < took < 1.5 + 1.5 * SLACK + lag.lost(began), f"answered after {took:.2f} s"
    # The last one was in vain: for 10 s previews are answered at once, without a request.
    link, began = t.link(), time.monotonic()
    assert await crawl(daemon, link) == plain
    await up.none("Subscribe", 0.3, link=link)
    assert time.monotonic() - began < 1.2 + lag.lost(began), "it waited"


@test("a browser that shows the page, and HEAD, are answered at once and ask nothing")
async def at_once(t):
    daemon, business, up = await t.relay()
    links = [t.link(), t.link()]
    await crawl(daemon, links[0], BROWSER)
    reader, writer = await tls.open_connection(port=daemon.port)
    writer.write(f"HEAD /s/{links[1]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await read_head(reader))[0] == 200
    writer.close()
    for link in links:
        await up.none("Subscribe", 0.3, link=link)


@test("without an uplink the answer comes at once, without a card")
async def no_uplink(t):
    daemon = await t.daemon(["127.0.0.1:1"]).start()
    began = time.monotonic()
    assert not card(await crawl(daemon, t.link()))
    assert time.monotonic() - began < 1.2 + lag.lost(began), "it waited"


@test("a business server that decides by address: a crawler's denial does not affect the page")
async def page_behind(t):
    daemon, business, up = await t.relay()
    link = t.link()
    asked = asyncio.ensure_future(crawl(daemon, link))
    up.deny(await waits(up, link), "who asks?")
    await asked
    page = await t.page(daemon)
    page.subscribe(link)
    ask = await up.expect("Subscribe", link=link)
    assert ask.address, "the page is asked for by its name"
    up.accept(ask)
    await page.expect("subscribed", topic=7)


@test("previews hold no more than their share of requests, and pages go first")
async def share(t):
    daemon, business, up = await t.relay(limits={"requests": 8})
    asked = [asyncio.ensure_future(crawl(daemon, t.link())) for _ in range(4)]
    first = await up.expect("Subscribe")
    await up.none("Subscribe", 0.3)  # an eighth of eight
    page, link = await t.page(daemon), t.link()
    page.subscribe(link)
    up.accept(await up.expect("Subscribe", link=link), topic=9)
    await page.expect("subscribed", topic=9)
    up.accept(first)
    up.state(7, 1, STATE)
    await asyncio.gather(*asked)

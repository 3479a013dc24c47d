"""The READMEs of the libraries, as a user reads them: first steps against a real hub, and each webhook receiver.

Each receiver gets calls that the library `standardwebhooks` signed, changed ones and events twice; one of each language
also a real hub, a real relay and a page, which is admitted, sends a message, and is kicked. Run by tests/sdk/run.
"""
import argparse
import asyncio
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
for folder in ("tests/conformance", "tests/hub"):
    sys.path.insert(0, str(ROOT / folder))
sys.dont_write_bytecode = True

import hub as hubs  # noqa: E402
import webhooks as posts  # noqa: E402
from standardwebhooks import Webhook  # noqa: E402

SECRETS = ["whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
LANGUAGES = {"node": "js", "python": "python"}


def blocks(name):
    """The code of a README, in order."""
    text = (ROOT / "sdk" / name / "README.md").read_text()
    return re.findall(rf"```{LANGUAGES[name]}\n(.*?)```", text, re.DOTALL)


def signed(id, value):
    body, now = json.dumps(value, ensure_ascii=False), datetime.datetime.now(tz=datetime.timezone.utc)
    signature = " ".join(Webhook(secret).sign(id, now, body) for secret in SECRETS)
    headers = {"webhook-id": id, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    return {"headers": {"content-type": "application/json", **headers}, "body": body}


def calls():
    at = "2026-11-28T12:34:56.789Z"
    message = {"id": "evt_1_1", "type": "page.message", "topic": "room-7", "page": "3.17@box-1", "data": "Grüße",
               "author": "617574686f722d37", "message_id": "6d657373616765206f66206120646179"}
    return {"secrets": SECRETS, "calls": [
        signed("call_1", {"type": "subscribe", "timestamp": at, "data": {"link": "a-link", "page": None}}),
        signed("call_2", {"type": "events", "timestamp": at, "data": {"events": [message, {**message, "type": "new", "id": "evt_1_2"}]}}),
    ]}


def receivers(out):
    """Each receiver of the READMEs: its name, its command and its folder."""
    node, tools = shutil.which("node"), ROOT / "target/tools/sdk"
    found = []
    # Beside the library, where `import` looks.
    for package in (tools / "node/node_modules").iterdir():
        link = out / "node/node_modules" / package.name
        if not link.exists():
            link.symlink_to(package)
    for code in blocks("node"):
        if "webhooks.verify(" in code:
            name = "express" if "express" in code else "node:http"
            path = out / "node" / f"{name.replace(':', '-')}.mjs"
            path.write_text(code.replace('"/sharelink"', '"/"'))
            found.append((name, [node, str(path)], out))
    before = ""
    for code in blocks("python"):
        if "webhooks.verify(" in code:
            name = "flask" if "flask" in code else "wsgi" if "wsgiref" in code else "http.server"
            path = out / f"receiver_{name.replace('.', '_')}.py"
            if name == "http.server":
                code = before.split("if __name__")[0] + code
            before = code
            path.write_text(code.replace('"/sharelink"', '"/"'))
            found.append((name, [sys.executable, str(path)], out))
    return found


async def viewed(name, command, out):
    """A real hub asks the receiver, and a page comes, speaks and is closed by what it told."""
    from sharelinkd import Hub
    t = hubs.Test(f"receiver {name}")
    held, port = posts.free_port()
    environment = {**os.environ, "WEBHOOK_SECRET": SECRETS[0], "PORT": str(port), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    receiver = subprocess.Popen(command, cwd=out, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines, loop = asyncio.Queue(), asyncio.get_running_loop()

    def read():
        for line in receiver.stdout:
            # Flask says hello first.
            if line.startswith("room-7 "):
                loop.call_soon_threadsafe(lines.put_nowait, line.rstrip("\n"))
    threading.Thread(target=read, daemon=True).start()
    try:
        await asyncio.to_thread(posts.wait_for, port, receiver)
        for number, secret in enumerate(SECRETS):
            (t.directory / f"webhook.{number}").write_text(secret + "\n")
        hub = await t.hub(links={"admission": "webhook", "keys": []}, webhook={
            "url": f"http://127.0.0.1:{port}/", "secret_files": ["webhook.0", "webhook.1"]})
        box = await t.box(hub)
        page, stranger = await t.page(box), await t.page(box)
        topic = (await page.join("a-link"))["topic"]
        stranger.subscribe("b-link")
        await stranger.expect("denied", reason="This link has expired.")
        sdk = Hub(f"http://127.0.0.1:{hub.port}", hub.key)
        room = sdk.topic("room-7")
        said = await asyncio.to_thread(room.say, "Welcome.", from_="Ann")
        await page.until("message", topic=topic, sequence=said["sequence"], data={"text": "Welcome.", "from": "Ann"})
        await asyncio.to_thread(room.set_state, {"title": "Room"})
        await page.until("state", topic=topic, data={"title": "Room"})
        page.send(topic, "Grüße 👋")
        _, number, words = (await asyncio.wait_for(lines.get(), 60 * hubs.SLACK)).split(" ", 2)
        assert words == "Grüße 👋", words
        await asyncio.to_thread(sdk.kick, number, "Please be kind.")
        await page.until("close", reason="Please be kind.")
        last = await t.page(box)
        topic = (await last.join("a-link"))["topic"]
        await asyncio.to_thread(room.end, "See you.")
        await last.until("end", topic=topic, reason="See you.")
        await asyncio.to_thread(room.open)
        again = await t.page(box)
        topic = (await again.join("a-link"))["topic"]
        await asyncio.to_thread(lambda: sdk.revoke(link="a-link", reason="Shared too widely."))
        await again.until("end", topic=topic, reason="Shared too widely.")
        t.check()
    finally:
        held.close()
        receiver.terminate()
        receiver.wait()
        await t.close()
    t.check()


def first_steps(hub, out):
    """The first lines of each README, and what they leave on the topic."""
    process = subprocess.Popen([hub, "dev", "--json", "--port", "0", "--api-port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        from sharelinkd import Hub
        place = json.loads(process.stdout.readline())
        environment = {**os.environ, "SHARELINK_KEY": place["key"]}
        room = Hub(place["api"], place["key"]).topic("demo")
        for count, (name, ending) in enumerate((("node", "mjs"), ("python", "py")), 1):
            # All but the receivers, one after the other; the one of settings has names to fill in.
            parts = [code for code in blocks(name) if "verify(" not in code and "retries" not in code]
            assert len(parts) == 4, parts
            code = "\n".join(parts).replace("http://127.0.0.1:8090", place["api"]).replace("order-4711-left", f"left-{name}")
            path = out / ("node" if name == "node" else ".") / f"first.{ending}"
            path.write_text(code)
            command = [shutil.which("node")] if name == "node" else [str(out / "python/bin/python")]
            subprocess.run([*command, str(path)], env=environment, check=True, timeout=600)
            texts = [message["data"]["text"] for message in room.messages()["messages"]]
            once = ["Order 4711 has left.", "Back in five minutes.", "Order 4712 has left.", "Order 4711 has left."]
            assert texts == once * count, texts
            assert room.state()["data"] == {"title": "The shoe shop"}
    finally:
        process.terminate()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("hub", "relay", "out"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    options = parser.parse_args()
    os.environ.update(SHARELINK_HUB=str(options.hub), SHARELINKD=str(options.relay))
    # Flask is among the tools, the library where it was installed from its wheel.
    [site] = (options.out / "python/lib").glob("python*/site-packages")
    os.environ["PYTHONPATH"] = str(site)
    sys.path.append(str(site))
    first_steps(options.hub, options.out)
    print("the READMEs' first steps do what they say")
    found = receivers(options.out)
    assert [name for name, *_ in found] == ["express", "node:http", "flask", "wsgi", "http.server"], found
    for name, command, folder in found:
        posts.receiver(command, folder, calls())
        if name in ("express", "flask"):
            asyncio.run(viewed(name, command, options.out))
    print(f"the READMEs' receivers answer calls of standardwebhooks, and a real hub: {', '.join(name for name, *_ in found)}")


if __name__ == "__main__":
    main()

"""The Python library against a real hub, through the gate of world.py. Run where the library is installed from its wheel."""
import copy
import http.client
import json
import os
import pathlib
import pickle
import ssl
import threading
import time
import traceback
import unittest
import urllib.request

from sharelinkd import Hub, HubError, webhooks
from sharelinkd.calls import Secret

HUB_URL, HUB_KEY, GATE_URL = os.environ["HUB_URL"], os.environ["HUB_KEY"], os.environ["GATE_URL"]
CLOSED_URL, SHARE_URL = os.environ["CLOSED_URL"], os.environ["SHARE_URL"]
# Far beyond what anything here takes, in seconds.
PATIENCE = 60
REAL, HUB = Hub(HUB_URL, HUB_KEY), Hub(GATE_URL, HUB_KEY)
BUSY = json.dumps({"type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": "send it again", "code": "busy"})
AWAY = BUSY.replace("busy", "engine_unavailable").replace("429", "503")
made = 0


def room(through=HUB):
    global made
    made += 1
    return through.topic(f"python/room-{made}")


def control(method, body=None):
    request = urllib.request.Request(f"{GATE_URL}/gate", data=body, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["seen"]


def gate(*plan):
    control("PUT", json.dumps(plan).encode())


def seen():
    return control("GET")


def texts(topic):
    return [message["data"]["text"] for message in REAL.topic(topic.name).messages()["messages"]]


class Sdk(unittest.TestCase):
    maxDiff = None

    def tearDown(self):
        gate()

    def fails(self, call, *arguments, **options):
        with self.assertRaises(HubError) as caught:
            call(*arguments, **options)
        return caught.exception

    def test_each_method_does_what_the_api_says(self):
        shoes = room()
        first = shoes.say("Grüße 👋", from_="Ann", avatar="https://a.example/a.png", author="00ff00ff00ff00ff")
        self.assertEqual(first["sequence"], 1)
        self.assertIs(shoes.message({"kind": "notice", "text": "two"}, durable=True)["durable"], False)
        shoes.message(None)
        data = {"text": "Grüße 👋", "from": "Ann", "avatar": "https://a.example/a.png", "author": "00ff00ff00ff00ff"}
        listed = {"epoch": first["epoch"], "messages": [{"sequence": 1, "data": data}], "next": 2}
        self.assertEqual(shoes.messages(since=1, limit=1), listed)
        self.assertIsNone(shoes.messages(since=3)["messages"][0]["data"])
        self.assertEqual(shoes.take_down(1)["sequence"], 4)
        self.assertEqual(shoes.messages(limit=1)["messages"][0]["data"], {"kind": "removed", "sequence": 1})

        self.assertIsNone(shoes.state())
        shoes.set_state({"title": "One", "host": {"name": "Ann", "age": 7}}, if_match=0)
        stale = self.fails(shoes.set_state, {}, if_match=0)
        self.assertEqual((stale.status, stale.code, stale.problem["sequence"]), (412, "state_changed", 1))
        shoes.update_state({"host": {"age": None, "more": 1}, "cover": "c"})
        self.assertEqual(shoes.state()["data"], {"title": "One", "host": {"name": "Ann", "more": 1}, "cover": "c"})
        turns = []

        def change(old):
            turns.append(old)
            if len(turns) == 1:
                shoes.set_state({"count": 1})
            return {"count": old.get("count", 0) + 1}
        shoes.update_state(change)
        self.assertEqual((len(turns), shoes.state()["data"]), (2, {"count": 2}))

        info = shoes.info()
        self.assertEqual((info["topic"], info["ended"], info["messages"]), (shoes.name, None, {"first": 1, "next": 5}))
        shoes.end("See you.")
        ended = self.fails(shoes.say, "x")
        self.assertEqual((ended.code, ended.problem["reason"], ended.is_unknown), ("topic_ended", "See you.", False))
        self.assertIsNone(shoes.take_down(2))
        shoes.open()
        self.assertIsNone(shoes.info()["ended"])

        plain = HUB.topic("python-plain")
        link = plain.link(ttl=60, shared=False, page_messages=True, replay=3)
        self.assertEqual((link["link"], link["url"][-14:], link["end"]), (plain.name, "s/python-plain", None))
        token = plain.ingest_token(ttl=60)["token"]
        self.assertLessEqual(HUB.revoke(token=token, reason="enough")["ttl_s"], 60)
        self.assertEqual(HUB.revoke(link=link["link"], ttl=9), {"ttl_s": 9})

        one, two = room(), room()
        results = HUB.publish([one.name, two.name], message={"text": "all"})
        self.assertEqual([(r["topic"], r["status"], r["sequence"]) for r in results], [(one.name, 200, 1), (two.name, 200, 1)])
        HUB.publish((one.name,), state=None)
        self.assertIsNone(one.state()["data"])
        done = HUB.batch([
            {"op": "message", "topic": one.name, "data": {"text": "b"}},
            {"op": "state", "topic": one.name, "data": 8, "if_match": 1},
            {"op": "remove", "topic": one.name, "sequence": 77},
            {"op": "end", "topic": two.name, "reason": "over"},
            {"op": "open", "topic": two.name},
        ])
        self.assertEqual([r["status"] for r in done], [200, 200, 404, 204, 204])
        self.assertEqual(done[2]["problem"]["code"], "not_found")
        self.assertEqual(texts(one), ["all", "b"])

        listed = HUB.topics(below="python", limit=1)
        self.assertEqual(len(listed["topics"]), 1)
        self.assertGreater(len(HUB.topics(below="python", cursor=listed["cursor"])["topics"]), 1)
        fleet = HUB.fleet()
        self.assertEqual((fleet["relays"][0]["name"], fleet["engine"]), ("dev", {"kind": "memory", "up": True}))
        HUB.kick(f"{fleet['relays'][0]['connection']}.7@dev", "Please be kind.")
        self.assertEqual(self.fails(HUB.kick, "999.7@dev").code, "not_found")
        self.assertEqual(HUB.health(), {"status": "ok"})

    def test_the_share_page_shows_the_state(self):
        HUB.topic("python-page").set_state({"title": "Shoes & more"})
        page = SHARE_URL.rsplit("/", 1)[0] + "/python-page"
        until = time.monotonic() + PATIENCE
        while True:
            with urllib.request.urlopen(page, timeout=PATIENCE) as answer:
                text = answer.read().decode()
            if "Shoes &amp; more" in text:
                return
            self.assertLess(time.monotonic(), until, text)

    def test_what_was_sent_twice_is_published_once(self):
        problem = {"Retry-After": "1", "Content-Type": "application/problem+json"}
        for step, least in (
            ({"do": "drop"}, 0),
            ({"do": "cut"}, 0),
            ({"do": "refuse", "status": 503, "headers": {"Retry-After": "1"}}, 1),
            ({"do": "spoil", "status": 503, "headers": problem, "body": AWAY}, 1),
            ({"do": "refuse", "status": 429, "body": BUSY}, 0),
            ({"do": "refuse", "status": 408}, 0),
            ({"do": "spoil", "status": 502, "body": "<html>Bad Gateway</html>"}, 0),
            ({"do": "spoil", "status": 500}, 0),
            ({"do": "hang"}, 0),
        ):
            with self.subTest(step=step):
                topic = room(Hub(GATE_URL, HUB_KEY, timeout=1 if step["do"] == "hang" else 60, retries=20))
                gate(step)
                published = topic.say("once")
                sent = seen()
                self.assertEqual(published["sequence"], 1)
                self.assertEqual(published.get("repeated", False), step["do"] != "refuse")
                self.assertGreaterEqual(len(sent), 2)
                self.assertEqual(len({request["key"] for request in sent}), 1)
                self.assertRegex(sent[0]["key"], "^[0-9a-f-]{36}$")
                self.assertGreaterEqual(sent[1]["at"] - sent[0]["at"], least, "after Retry-After")
                self.assertEqual(texts(topic), ["once"])
        topic = room()
        topic.say("a")
        topic.say("a")
        self.assertEqual(texts(topic), ["a", "a"], "two calls are two messages")

    def test_every_write_can_be_sent_again(self):
        topic, other = room(), room()
        gate({"do": "drop"})
        self.assertTrue(topic.set_state(1, if_match=0)["repeated"], "the first has set it, so it is not state_changed")
        gate({"do": "drop"})
        results = HUB.publish([topic.name, other.name], message={"text": "p"})
        self.assertEqual([r["repeated"] for r in results], [True, True])
        gate({"do": "drop"})
        HUB.batch([{"op": "message", "topic": topic.name, "data": {"text": "b"}}] * 2)
        self.assertEqual((texts(topic), texts(other)), (["p", "b", "b"], ["p"]))
        for call in (
            lambda: topic.take_down(1), topic.end, topic.open, topic.ingest_token,
            lambda: HUB.revoke(link="another-link-of-nobody"), HUB.topics,
        ):
            gate({"do": "drop"})
            call()
            self.assertEqual(len(seen()), 2)
        partial = {"results": [{"topic": topic.name, "status": 200}, {"topic": other.name, "status": 503}]}
        gate({"do": "spoil", "status": 200, "body": json.dumps(partial)})
        again = HUB.publish([topic.name, other.name], state=2)
        self.assertEqual([(r["status"], r["repeated"]) for r in again], [(200, True), (200, True)])
        # The hub goes away after the first half: what was done is still told.
        gate({"do": "spoil", "status": 200, "body": json.dumps(partial)}, *[{"do": "refuse", "status": 503}] * 2)
        half = Hub(GATE_URL, HUB_KEY, retries=2).publish([topic.name, other.name], state=3)
        self.assertEqual([r["status"] for r in half], [200, 503])

    def test_what_may_have_taken_effect_is_said_and_can_be_sent_again_by_hand(self):
        once = Hub(GATE_URL, HUB_KEY, timeout=0.3, retries=0)
        topic = room(once)
        gate({"do": "hang"})
        error = self.fails(topic.say, "slow")
        self.assertEqual((error.code, error.status, error.is_unknown, error.attempts), ("timeout", None, True, 1))
        self.assertRegex(str(error), r'no answer within 0\.30 s\. It is not known whether it took effect: .* "[0-9a-f-]{36}"')
        until = time.monotonic() + PATIENCE
        while self.is_empty(topic):
            self.assertLess(time.monotonic(), until)
        again = REAL.topic(topic.name).say("slow", idempotency_key=error.idempotency_key)
        self.assertEqual((again["repeated"], texts(topic)), (True, ["slow"]))
        operations = [{"op": "message", "topic": topic.name, "data": {"text": text}} for text in "ab"]
        gate({"do": "drop"})
        error = self.fails(once.batch, operations)
        self.assertRegex(str(error), 'not known whether it took effect: .* "[0-9a-f-]{36}"')
        again = REAL.batch(operations, idempotency_key=error.idempotency_key)
        self.assertEqual(([result["repeated"] for result in again], texts(topic)), ([True, True], ["slow", "a", "b"]))
        gate({"do": "hang"})
        self.assertFalse(self.fails(topic.info).is_unknown, "reading changes nothing")
        gate({"do": "drop"})
        lost = self.fails(topic.end)
        self.assertEqual((lost.code, lost.idempotency_key, lost.is_unknown), ("connection_lost", None, True))
        self.assertTrue(str(lost).endswith("call again, which does no harm where it did"))

    def is_empty(self, topic):
        try:
            return not texts(topic)
        except HubError:
            return True

    def test_retries_are_bounded(self):
        no = {"do": "refuse", "status": 503, "body": AWAY}
        gate(no, no, no, no)
        error = self.fails(Hub(GATE_URL, HUB_KEY, retries=2).topic("a").say, "x")
        self.assertEqual((len(seen()), error.attempts, error.code, error.is_unknown), (3, 3, "engine_unavailable", True))
        gate({"do": "refuse", "status": 503, "headers": {"Retry-After": "3600", "X-Request-Id": "r-1"}})
        late = self.fails(HUB.topic("a").say, "x")
        self.assertEqual((len(seen()), late.retry_after, late.request_id), (1, 3600, "r-1"))
        gate(*[{"do": "refuse", "status": 429, "body": BUSY}] * 30)
        over = self.fails(Hub(GATE_URL, HUB_KEY, retries=20, deadline=2).topic("a").say, "x")
        self.assertEqual(over.attempts, len(seen()))
        self.assertLess(over.attempts, 20)

    def test_what_wont_get_better_is_not_tried_again(self):
        for status in (400, 401, 403, 404, 409, 412, 413, 415, 422, 501, 507):
            gate({"do": "refuse", "status": status, "body": json.dumps({"code": "a_code", "detail": "a detail"})})
            error = self.fails(HUB.topic("a").say, "x")
            self.assertEqual((len(seen()), error.status, error.code, error.attempts), (1, status, "a_code", 1))
        for status, headers, text in (
            (302, {"Location": f"{HUB_URL}/healthz"}, "this is a redirect"),
            (200, {}, "this is no answer of a hub"),
            (404, {}, "this is no answer of a hub"),
        ):
            gate({"do": "refuse", "status": status, "headers": headers, "body": "<html></html>"})
            error = self.fails(HUB.topic("a").say, "x")
            self.assertEqual((len(seen()), error.code), (1, "not_the_hub"))
            self.assertTrue(error.detail.startswith(text))
        closed = self.fails(Hub(CLOSED_URL, HUB_KEY, retries=1).topic("a").say, "x")
        self.assertEqual((closed.code, closed.is_unknown, closed.attempts), ("unreachable", False, 2))
        self.assertRegex(str(closed), "can't connect to .*refused.*: does the hub run there")
        tls = self.fails(Hub(GATE_URL.replace("http:", "https:"), "k", retries=3).health)
        self.assertEqual((tls.code, tls.attempts), ("tls", 1))

    def test_no_text_has_the_key(self):
        said = [repr(HUB), str(HUB), repr(HUB.topic("a")), repr(vars(HUB)), repr(vars(HUB._calls)), repr(vars(HUB.topic("a")))]
        for url, step in (
            (GATE_URL, {"do": "drop"}), (GATE_URL, {"do": "refuse", "status": 401}), (GATE_URL, {"do": "hang"}),
            (CLOSED_URL, {"do": "pass"}),
        ):
            gate(step)
            error = self.fails(Hub(url, HUB_KEY, retries=0, timeout=0.3).topic("a").say, "x")
            # With all variables of all frames, as reporters of errors show them.
            whole = traceback.TracebackException.from_exception(error, capture_locals=True)
            said += [repr(error), str(error), repr(vars(error)), *whole.format()]
            self.assertEqual(str(pickle.loads(pickle.dumps(error))), str(error))
            self.assertEqual(copy.copy(error).code, error.code)
        for key in (f"{HUB_KEY}\n", f"slt_{HUB_KEY}", f"whsec_{HUB_KEY}"):
            with self.assertRaises(ValueError) as caught:
                Hub(HUB_URL, key)
            said.append(str(caught.exception))
        self.assertFalse([text for text in said if HUB_KEY[4:] in text])
        with self.assertRaises(TypeError):
            pickle.dumps(Secret("x"))

    def test_a_thread_keeps_one_connection(self):
        hub = Hub(GATE_URL, HUB_KEY, retries=0)
        gate({"do": "pass"}, {"do": "pass"}, {"do": "close"})
        for _ in range(3):
            hub.health()
        self.assertEqual(len({request["port"] for request in seen()}), 1)
        # The other end has closed it, and nothing is lost by that.
        until = time.monotonic() + PATIENCE
        kept = hub._calls._own.kept.connection
        while kept.sock.recv(1) != b"" if kept.sock else False:
            self.assertLess(time.monotonic(), until)
        hub.health()
        threads = [threading.Thread(target=hub.health) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(len({request["port"] for request in seen()}), 5)
        hub.close()
        hub.health()
        with hub:
            pass
        self.assertIsNone(hub._calls._own.kept.connection.sock)

    def test_a_forked_process_has_connections_of_its_own(self):
        hub = Hub(GATE_URL, HUB_KEY, retries=0)
        gate()
        hub.health()
        child = os.fork()
        if child == 0:
            try:
                hub.health()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        hub.health()
        ports = [request["port"] for request in seen()]
        self.assertEqual((len(ports), ports[0] == ports[2], ports[0] == ports[1]), (3, True, False))

    def test_wrong_use_is_told_what_is_right_and_nothing_is_sent(self):
        given = {"url": HUB_URL, "key": HUB_KEY}
        for change, words in (
            ({"url": None}, "url is None; give the API's, as \"https:"),
            ({"url": "hub.example:8090"}, "must begin with http:// or https://"),
            ({"url": "http://"}, "can't be read"),
            ({"url": "http://a b"}, "can't be read"),
            ({"url": "http://h:x"}, "can't be read"),
            ({"url": "http://u:p@h"}, "give the key as the argument key"),
            ({"url": "http://h/?a"}, "leave it out"),
            ({"url": "http://h/v1/"}, "ends with /v1; leave that out"),
            ({"key": None}, "key is None; make one by `sharelink-hub key`. Is the environment variable set"),
            ({"key": ""}, "key is empty"),
            ({"key": 7}, "must be a string"),
            ({"key": "a b"}, "strip what was read"),
            ({"key": "slt_a"}, "a token for picture and sound"),
            ({"key": "sha256:a"}, "needs the key itself"),
            ({"retries": 1.5}, "must be a whole number"),
            ({"retries": 21}, "from 0 to 20"),
            ({"timeout": 0}, "number of seconds above 0"),
            ({"deadline": 300}, "at most 240"),
        ):
            with self.assertRaises((TypeError, ValueError)) as caught:
                Hub(**{**given, **change})
            self.assertIn(words, str(caught.exception))
        for name in ("", "a b", "ä", "a\n", "x" * 65, "room?", 7, None):
            with self.assertRaisesRegex((TypeError, ValueError), "1 to 64 of the characters"):
                HUB.topic(name)
        for name in (".", ".."):
            with self.assertRaisesRegex(ValueError, "can't be reached by a URL"):
                HUB.topic(name)
        gate()
        topic, ring = HUB.topic("a"), {}
        ring["ring"] = ring
        for call, words in (
            (lambda: topic.say(None), "text must be a string"),
            (lambda: topic.message(object()), "no JSON value"),
            (lambda: topic.message(float("nan")), "no JSON value"),
            (lambda: topic.message("\ud800"), "half a surrogate pair"),
            (lambda: topic.message(ring), "ircular"),
            (lambda: topic.message("x" * 2**20), "at most 1048576 bytes of JSON, and this one has 1048578"),
            (lambda: topic.message(1, idempotency_key="a b"), "1 to 128 visible ASCII"),
            (lambda: topic.take_down(None), "give the message's sequence"),
            (lambda: topic.take_down("1"), "must be a whole number"),
            (lambda: topic.take_down(True), "must be a whole number"),
            (lambda: topic.take_down(0), "must be from 1"),
            (lambda: topic.update_state(7), "a function"),
            (lambda: topic.end(""), "must have 1 to 256"),
            (lambda: topic.end("€" * 86), "has 258 bytes"),
            (lambda: topic.link(ttl="1h"), "ttl (in seconds) is of the type str"),
            (lambda: topic.link(shared=1), "must be True or False"),
            (lambda: HUB.publish("a", message=1), "a list of names"),
            (lambda: HUB.publish([], message=1), "1 to 100 names"),
            (lambda: HUB.publish(["a", "a"], message=1), "twice"),
            (lambda: HUB.publish(["a"]), "either message or state"),
            (lambda: HUB.publish(["a"], message=1, state=1), "either message or state"),
            (lambda: HUB.batch([]), "1 to 1000"),
            (lambda: HUB.batch([{"topic": "a"}]), "operation 0 has no op"),
            (lambda: HUB.revoke(), "either link or token"),
            (lambda: HUB.revoke(link="https://h/s/a"), "behind /s/"),
            (lambda: HUB.revoke(token="a"), "begins with slt_"),
            (lambda: HUB.kick("a"), 'as "1.41@hall"'),
            (lambda: HUB.topics(limit=0), "from 1 to 1000"),
        ):
            with self.assertRaises((TypeError, ValueError)) as caught:
                call()
            self.assertIn(words, str(caught.exception))
        self.assertEqual(seen(), [])

    def test_webhooks_are_verified_as_standard_webhooks_says(self):
        vectors = json.loads(pathlib.Path(os.environ["VECTORS"]).read_text(encoding="utf-8"))
        now, (example, *calls) = vectors["now"], vectors["calls"]
        with self.assertRaisesRegex(webhooks.WebhookError, "the signature is right, and the body is no call"):
            webhooks.verify(example["secrets"][0], example["headers"], example["body"], now=now)
        stranger = "whsec_" + "A" * 43 + "="
        for call in calls:
            headers, body, secrets = call["headers"], call["body"], call["secrets"]
            message = http.client.HTTPMessage()
            for name, value in headers.items():
                message[name.title()] = value
            forms = [
                headers, {name.upper(): value for name, value in headers.items()}, message,
                {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers.items()} | {"wsgi.input": None},
                [(name.encode(), value.encode()) for name, value in headers.items()],
            ]
            for form in forms:
                for data in (body, body.encode(), bytearray(body.encode()), memoryview(body.encode())):
                    for secret in secrets:
                        self.assertEqual(webhooks.verify(secret, form, data, now=now), json.loads(body))
            secret = secrets[0]
            self.assertEqual(webhooks.verify([stranger, secret], headers, body, now=now), json.loads(body))
            self.assertEqual(webhooks.verify(secret[6:], headers, body, now=now + 299), json.loads(body))
            old = headers["webhook-signature"].replace("v1,", "v1a,")
            for given, changes, text, at, words in (
                (secret, {}, body + " ", now, "no signature matches"),
                (secret, {}, body.replace("room", "moor").replace("a-link", "b-link"), now, "no signature matches"),
                (secret, {"webhook-id": "call_3"}, body, now, "no signature matches"),
                (secret, {"webhook-timestamp": str(now + 1)}, body, now, "no signature matches"),
                (secret, {"webhook-signature": "v1,AAAA"}, body, now, "no signature matches"),
                (secret, {"webhook-signature": "v1,\xff"}, body, now, "no signature matches"),
                (secret, {"webhook-signature": old}, body, now, "no signature matches"),
                (secret, {"webhook-signature": ""}, body, now, "no header webhook-signature"),
                (secret, {"webhook-timestamp": "soon"}, body, now, "no time in seconds"),
                ([stranger], {}, body, now, "no signature matches"),
                (secret, {}, body, now + 301, "301 s old, and may be 300: set the clocks"),
                (secret, {}, body, now - 301, "301 s ahead"),
                (secret, {}, body, None, " s old"),
            ):
                with self.assertRaises(webhooks.WebhookError) as caught:
                    webhooks.verify(given, {**headers, **changes}, text, now=at)
                self.assertIn(words, str(caught.exception))
                self.assertNotIn(secret[8:], str(caught.exception))
                self.assertEqual(caught.exception.status, 401)
        call = calls[0]
        secret, headers, body = call["secrets"][0], call["headers"], call["body"]
        for given, data, words in (
            (secret, json.loads(body), "the body is of the type dict, and must be the bytes as they came"),
            (secret, None, "the body is None"),
            (None, body, "the secret is None; give the text"),
            ([], body, "there is no secret"),
            ("whsec_!", body, "can't be read"),
            ("slk_key", body, "can't be read"),
        ):
            with self.assertRaises((TypeError, ValueError)) as caught:
                webhooks.verify(given, headers, data, now=now)
            self.assertIn(words, str(caught.exception))
        self.assertEqual(
            webhooks.accept("a/b", ttl=60, shared=False, page_messages=True, replay=9),
            {"accept": True, "topic": "a/b", "shared": False, "ttl_s": 60, "replay": 9, "page_messages": True})
        self.assertEqual(webhooks.accept("a"), {"accept": True, "topic": "a"})
        self.assertEqual(webhooks.deny("over"), {"accept": False, "reason": "over"})
        with self.assertRaisesRegex(ValueError, "from 1 to 86400"):
            webhooks.accept("a", ttl=86401)

    def test_a_context_of_ones_own_is_for_tls(self):
        context = ssl.create_default_context()
        self.assertIs(Hub("https://h", "k", ssl_context=context)._calls._tls, context)
        self.assertEqual(Hub("https://[::1]:8090/hub/", "k").url, "https://[::1]:8090/hub")


if __name__ == "__main__":
    unittest.main()

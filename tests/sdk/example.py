"""Each method of the Python library, as a strict checker sees it; run against a hub afterwards."""
import os
from typing import List, Optional, Union

from sharelinkd import Hub, HubError, Operation, Published, Result, TopicInfo, webhooks

with Hub(os.environ["GATE_URL"], os.environ["HUB_KEY"], timeout=15, deadline=60, retries=4, ssl_context=None) as hub:
    room = hub.topic("example")
    said: Published = room.say("Hello.", from_="Ann", avatar="https://a.example/a.png")
    sequence: int = said["sequence"]
    room.message({"kind": "notice"}, idempotency_key=f"order-{os.getpid()}", durable=True)
    for message in room.messages(since=1, limit=10)["messages"]:
        print(message["sequence"], message["data"])
    removed: Optional[Published] = room.take_down(sequence)
    room.set_state({"title": "Room", "count": 1}, if_match=0, idempotency_key="state-1")
    room.update_state({"title": "Another"})
    room.update_state(lambda old: {**old, "count": old["count"] + 1})
    state = room.state()
    assert state and state["data"] == {"title": "Another", "count": 2}, state
    info: TopicInfo = room.info()
    room.end("See you.")
    room.open()
    link = room.link(ttl=60, shared=True, page_messages=False, replay=5)
    token = room.ingest_token(ttl=60)["token"]
    operations: List[Operation] = [
        {"op": "message", "topic": "example", "data": 1},
        {"op": "state", "topic": "example", "data": 1, "if_match": 3},
        {"op": "remove", "topic": "example", "sequence": 1},
        {"op": "end", "topic": "example", "reason": "over"},
        {"op": "open", "topic": "example"},
    ]
    results: List[Result] = [
        *hub.batch(operations, idempotency_key="batch-1"),
        *hub.publish(["example"], message={"text": "all"}),
        *hub.publish(("example",), state=None, idempotency_key="all-1"),
    ]
    refused = [result["problem"]["detail"] for result in results if result["status"] >= 300]
    assert not refused, refused
    seconds: int = hub.revoke(token=token, reason="over")["ttl_s"] + hub.revoke(link=link["link"], ttl=60)["ttl_s"]
    topics = hub.topics(below="example", cursor=None, limit=5)
    relay = hub.fleet()["relays"][0]
    hub.kick(f"{relay['connection']}.1@{relay['name']}", "Please be kind.")
    print(removed, info["audience"]["pages"], link["end"], seconds, topics["cursor"], hub.health(), hub.url, room.name)
    try:
        hub.topic("nothing-here").info()
        raise SystemExit("there is such a topic")
    except HubError as error:
        assert error.code == "not_found" and error.problem and error.problem["status"] == 404, error
        print(error.status, error.detail, error.retry_after, error.is_unknown, error.idempotency_key, error.attempts)
    hub.close()


def receive(headers: "dict[str, str]", body: bytes) -> Union[webhooks.Accept, webhooks.Deny, None]:
    call = webhooks.verify([os.environ["NEW_SECRET"], os.environ["OLD_SECRET"]], headers, body, tolerance=300)
    if call["type"] == "subscribe":
        page = call["data"]["page"]
        if call["data"]["link"] == "a-link":
            return webhooks.accept("room-7", ttl=60, page_messages=True)
        return webhooks.deny(f"not {page['address'] if page else 'you'}")
    for event in call["data"]["events"]:
        if event["type"] == "page.message":
            id: str = event.get("message_id") or event["id"]
            author: Optional[str] = event.get("author")
            print(id, event["page"], len(event["data"]), author)
    return None


def wrong(hub: Hub) -> None:
    hub.topic("a").say("x", form="Ann")  # type: ignore[call-arg]
    hub.batch([{"op": "say", "topic": "a", "data": 1}])  # type: ignore[misc,list-item]
    hub.topic("a").link(ttl="1h")  # type: ignore[arg-type]
    webhooks.verify("whsec_", {}, {"type": "events"})  # type: ignore[arg-type]

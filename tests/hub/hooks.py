"""What Schemathesis has to know of the hub's API: lines of JSON, and the results of batches."""
import json

import schemathesis
from schemathesis import GenerationMode


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    return json.dumps(value).encode()


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Some of Schemathesis's own values for `If-Match` lack the quotes that the document's pattern demands."""
    if case.headers and case.headers.get("If-Match", "").isdigit():
        case.headers["If-Match"] = f'"{case.headers["If-Match"]}"'


def mode(case, part):
    """Whether this part of a request is as the document says, or on purpose is not."""
    components = case.meta.components if case.meta else {}
    return next((component.mode for where, component in components.items() if where.value == part), GenerationMode.POSITIVE)


@schemathesis.check
def results_conformance(ctx, response, case):
    """An operation that the document allows is not refused as one that can't be read; one that it doesn't allow is."""
    if case.path not in ("/v1/batch", "/v1/publish") or response.status_code != 200 or case.meta is None:
        return
    statuses = {result["status"] for result in response.json()["results"]}
    if mode(case, "body") == GenerationMode.POSITIVE:
        assert statuses <= {200, 204, 404, 409, 412, 422}, statuses
    else:
        assert statuses - {200, 204}, statuses

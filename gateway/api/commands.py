"""Commands over HTTP: the configured paths, and the status resource."""

import re
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import bodies
from gateway.api.callers import identify
from gateway.api.problems import JSONResponse
from gateway.commands import FINAL, CommandStatus, channel_of
from gateway.dispatch import Dispatcher, Origin
from gateway.errors import BadRequest

_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_PREFERENCE = re.compile(r'(?:"(?:\\.|[^"\\])*(?:"|$)|[^",])+')
MAX_PREFER = 1000
"""Characters of `Prefer` that are looked at."""
MAX_DIGITS = 9
"""Of N: more seconds are as good as for ever."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class CommandEndpoint:
    """`POST {command path}`: 202 once the command is in the log.

    With `Prefer: wait=N` (RFC 7240) the outcome itself, 200, if it comes within N seconds.
    """

    def __init__(self, dispatcher: Dispatcher, *, max_body: int, max_wait: float) -> None:
        self._dispatcher = dispatcher
        self._max_body = max_body
        self._max_wait = max_wait

    async def __call__(self, request: Request) -> Response:
        caller = await identify(request, self._dispatcher)
        bodies.expect_json(request)
        body = await bodies.read(request, self._max_body)
        wait = wanted_wait(request)
        status, repeated, headers = await self._dispatcher.send(
            _target(request),
            body,
            caller,
            wait=min(wait or 0.0, self._max_wait),
            origin=_origin(request),
            idempotency_key=idempotency_key(request),
        )
        response = _final(status) if status.status in FINAL else accepted(status)
        response.headers.update(headers)
        if repeated:
            response.headers["idempotency-replayed"] = "true"
        if wait is not None:
            response.headers["preference-applied"] = f"wait={min(wait, int(self._max_wait))}"
        return response


class StatusEndpoint:
    """`GET /commands/{id}`: what became of a command."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def __call__(self, request: Request) -> Response:
        caller = await identify(request, self._dispatcher)
        status = await self._dispatcher.status(request.path_params["id"], caller)
        return JSONResponse(status, headers={"cache-control": "no-store"})


def wanted_wait(request: Request) -> int | None:
    """Return the seconds of `Prefer: wait=N`; None where there is none, or none that is a number.

    The first one counts, and what cannot be understood is passed over (RFC 7240, section 2).
    """
    header = ",".join(request.headers.getlist("prefer"))[:MAX_PREFER]
    for preference in _PREFERENCE.findall(header):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"')
            if not (digits.isascii() and digits.isdigit()):
                return None
            return int(digits) if len(digits) <= MAX_DIGITS else 10**MAX_DIGITS
    return None


def _target(request: Request) -> str:
    """Return the path as the client sent it; servers may give the decoded one alone."""
    raw: bytes | None = request.scope.get("raw_path")
    return raw.decode("latin-1") if raw else quote(request.scope["path"])


def idempotency_key(request: Request) -> str | None:
    """Return the key of `Idempotency-Key`, or None where there is none.

    The draft wants a string in quotes (RFC 8941); most who send it leave them out. Both are taken.

    Raises:
        BadRequest: there is more than one, or a quoted one does not end.
    """
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    quoted = _QUOTED.fullmatch(given[0])
    if len(given) > 1 or (given[0].startswith('"') and not quoted):
        raise BadRequest(f"expected one Idempotency-Key but got {', '.join(given)[:80]!r}")
    return re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else given[0]


def _origin(request: Request) -> Origin:
    traceparent = request.headers.get("traceparent", "")
    if not _TRACEPARENT.fullmatch(traceparent):
        return Origin()
    return Origin(traceparent, request.headers.get("tracestate", "")[:512] or None)


def accepted(status: CommandStatus) -> Response:
    """Answer that a command is in the log, and where to hear of it."""
    url = f"/commands/{status.id}"
    channel = quote(channel_of(status.id), safe="")
    document = {
        "id": status.id,
        "status": status.status,
        "status_url": url,
        "events_url": f"/sse?channel={channel}&last_event_id=earliest",
    }
    return JSONResponse(document, status_code=202, headers={"location": url})


def _final(status: CommandStatus) -> Response:
    return JSONResponse(status, headers={"content-location": f"/commands/{status.id}"})

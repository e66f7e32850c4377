"""The outermost layer: what no request gets past, and what every answer carries."""

from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import problems
from gateway.api.cors import CrossOrigin, Headers, preflight
from gateway.api.heads import Head, check_host, read_head
from gateway.errors import PROBLEM, BadRequest, GatewayError, HeadTooLarge
from gateway.policy.origins import Origins

ALWAYS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
"""Of every answer that does not say something else; only pages do."""


_STARTS = ("http.response.start", "websocket.http.response.start")


class Edge:
    """Pure ASGI middleware around all others."""

    def __init__(
        self, app: ASGIApp, *, origins: Origins, hosts: Iterable[str] = (), hsts: float = 0
    ) -> None:
        """`hosts` are the names under which it is known; none: any. `hsts` in seconds."""
        self._app = app
        self._cross_origin = CrossOrigin(origins)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._always = list(ALWAYS)
        if hsts:
            self._always.append((b"strict-transport-security", b"max-age=%d" % hsts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        app, headers = self._app, self._always
        try:
            head = read_head(scope)
            check_host(scope, head, self._hosts)
            headers = headers + self._cross_origin.headers(head.first("origin"), head.host)
            if scope["type"] == "http":
                app = _preflight(scope, head) or app
        except GatewayError as error:
            app = _refusal(error)
        await app(scope, receive, _Completed(send, headers))


def _preflight(scope: Scope, head: Head) -> ASGIApp | None:
    asks = scope["method"] == "OPTIONS" and head.first("origin") is not None
    if asks and head.first("access-control-request-method") is not None:
        return preflight(head.first("access-control-request-headers") or "")
    return None


def _refusal(error: GatewayError) -> ASGIApp:
    response = problems.respond(error)
    if isinstance(error, BadRequest | HeadTooLarge):  # where its body ends is not agreed on
        response.headers["connection"] = "close"
    return response


class _Completed:
    """Sends an answer with the headers that it lacks, and an error as a problem document."""

    __slots__ = ("_headers", "_replaced", "_send")

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send = send
        self._headers = headers
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in _STARTS:
            await self._start(message)
        elif not self._replaced:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        given = dict(message["headers"])
        lacking = [each for each in self._headers if each[0] not in given]
        if message["status"] < 400 or given.get(b"content-type") == PROBLEM.encode():
            await self._send({**message, "headers": [*message["headers"], *lacking]})
            return
        self._replaced = True
        kept = (
            {"content-range": given[b"content-range"].decode()} if b"content-range" in given else {}
        )
        problem = problems.of_status(message["status"], kept)
        headers = [*problem.raw_headers, *lacking]
        await self._send({**message, "headers": headers})
        kind = message["type"].replace("start", "body")
        await self._send({"type": kind, "body": problem.body})

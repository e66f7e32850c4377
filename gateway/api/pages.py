"""The web console, the example's dashboard, and what is configured, for the console to show."""

from collections.abc import Iterator
from pathlib import Path

from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.problems import JSONResponse
from gateway.config import Config, HistoryConfig
from gateway.policy.compiler import Policy
from gateway.policy.schemas import Schema

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)


def routes(config: Config, policy: Policy, web: Path, version: str) -> Iterator[BaseRoute]:
    """Give the routes of the pages that are switched on."""
    if not (config.server.console or config.server.demo):
        return
    files = StaticFiles(directory=web)
    yield Mount("/static", _Guarded(files))
    if config.server.console:
        yield _get("/", _page(files, "index.html"))
        yield _get("/favicon.ico", _page(files, "favicon.svg"))
        yield _get("/console.json", _Guarded(JSONResponse(describe(config, policy, version))))
    if config.server.demo:
        yield _get("/demo", RedirectResponse("/demo/"))
        yield _get("/demo/", _page(files, "demo/index.html"))
        yield Mount("/demo", _Guarded(StaticFiles(directory=web / "demo")))


def _get(path: str, app: ASGIApp) -> Route:
    return Route(path, app, methods=["GET"])


def describe(config: Config, policy: Policy, version: str) -> dict[str, object]:
    """Return what the console needs to know: commands with their schemas, channels with history.

    `anonymous` says whether somebody is let in who shows no credentials.
    """
    return {
        "name": "push gateway",
        "version": version,
        "demo": config.server.demo,
        "anonymous": config.auth.anonymous or not config.auth.configured,
        "commands": [
            {
                "path": route.path,
                "type": route.type,
                "schema": route.schema.document if route.schema else None,
                "example": _example(route.schema),
            }
            for route in policy.commands
        ],
        "channels": [
            {"pattern": channel.pattern, "history": _history(channel.history)}
            for channel in policy.channels.configs
        ],
    }


def _history(history: HistoryConfig | None) -> dict[str, float] | None:
    return {"size": history.size, "ttl": float(history.ttl)} if history else None


def _example(schema: Schema | None) -> object:
    """Return the first of a schema's `examples`, if it has any."""
    document = schema.document if schema else None
    examples = document.get("examples") if isinstance(document, dict) else None
    return examples[0] if isinstance(examples, list) and examples else None


class _Guarded:
    """Adds the headers that keep a page from running what is not ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, guarded)


_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]


def _page(files: StaticFiles, name: str) -> ASGIApp:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        response = await files.get_response(name, scope)
        await response(scope, receive, send)

    return _Guarded(page)

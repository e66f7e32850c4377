"""Errors as problem details, RFC 9457."""

import asyncio
import logging
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.errors import (
    PROBLEM,
    GatewayError,
    InvalidToken,
    ShuttingDown,
    Unauthorized,
    UpgradeRequired,
    problem_of,
)

logger = logging.getLogger(__name__)


def respond(error: GatewayError) -> Response:
    """Return the problem document of an error."""
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = challenge(error)
    if isinstance(error, UpgradeRequired):
        headers |= {"upgrade": "websocket", "connection": "upgrade"}
    return _response(error.document(), headers)


def of_status(status: int, headers: dict[str, str]) -> Response:
    """Return the problem document of a bare status."""
    return _response(problem_of(status, HTTPStatus(status).description), headers)


def challenge(error: Unauthorized) -> str:
    """Return how to do better, RFC 6750 section 3: who showed no token is told of no error."""
    return 'Bearer error="invalid_token"' if isinstance(error, InvalidToken) else "Bearer"


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer what Starlette refused: no such path, no such method."""
    assert isinstance(error, HTTPException)
    status, path = HTTPStatus(error.status_code), request.scope["path"][:200]
    headers = dict(error.headers or {})
    detail = f"{request.method} {path}: {error.detail}"
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(headers.get("Allow", "").split(", ")))
        detail = f"expected {headers['Allow'].replace(', ', ' or ')} but got {request.method}"
    elif status == HTTPStatus.NOT_FOUND:
        detail = f"expected a path that is served here but got {path!r}"
    return _response(problem_of(status, detail), headers)


async def on_plain_request(request: Request) -> Response:
    """Answer who came to `/ws` without wanting a WebSocket."""
    raise UpgradeRequired("expected a WebSocket handshake but got a plain request")


class LastResort:
    """Middleware that answers what nothing else did: mistakes of ours, and requests cut short.

    A mistake is logged, and not shown to strangers. Starlette would raise it again once it is
    answered, and the server then cut the connection. Servers cancel requests when they stop.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            if begun or scope["type"] != "http":
                raise
            answer = respond(ShuttingDown("the request was not done when the process had to stop"))
            await answer(scope, receive, send)
        except ClientDisconnect:
            logger.debug("%s %s: the client went away", scope["method"], scope["path"])
        except Exception:
            if begun or scope["type"] != "http":
                raise  # the server cuts the connection, so that no half is taken for the whole
            logger.exception("%s %s failed", scope["method"], scope["path"])
            answer = respond(GatewayError("this is a mistake in the gateway; it was logged"))
            await answer(scope, receive, send)


async def on_unknown_websocket(websocket: WebSocket) -> None:
    """Answer who wants a WebSocket at a path that has none."""
    detail = f"expected /ws, where WebSockets are, but got {websocket.scope['path'][:200]!r}"
    await websocket.send_denial_response(_response(problem_of(404, detail), {}))


def _response(document: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(
        msgspec.json.encode(document),
        status_code=document["status"],
        headers=headers,
        media_type=PROBLEM,
    )


class JSONResponse(Response):
    """JSON, encoded as everything else here is."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)

"""Refusals below ASGI: of what is no request, as the bytes of a whole answer. RFC 9457."""

import re
from http import HTTPStatus
from typing import Any

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import StatusLike
from websockets.utils import accept_key

from gateway.errors import PROBLEM, GatewayError, problem_of


def refusal(error: GatewayError) -> bytes:
    """Return an answer after which the connection is closed."""
    response = _response(error.document())
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(error.retry_after_s)
    return response.serialize()


def _response(document: dict[str, Any]) -> Response:
    status, body = HTTPStatus(document["status"]), msgspec.json.encode(document)
    headers = Headers(
        {
            "content-type": PROBLEM,
            "content-length": str(len(body)),
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
            "connection": "close",
        }
    )
    return Response(status, status.phrase, headers, body)


_USUAL = {"upgrade": ["websocket"], "connection": ["Upgrade"], "sec-websocket-version": ["13"]}
"""What browsers and libraries send; anything else that means the same is read with more care."""
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
"""16 bytes in base64. RFC 6455, section 4.1."""


class Handshake(ServerProtocol):
    """The server's half of a WebSocket's handshake."""

    def accept(self, request: Request) -> Response:
        """Answer a handshake. The usual one, which negotiates nothing, needs no parsers."""
        headers = request.headers
        keys = headers.get_all("sec-websocket-key")
        if (
            (request.method, request.protocol) != ("GET", "HTTP/1.1")
            or any(headers.get_all(name) != values for name, values in _USUAL.items())
            or len(keys) != 1
            or not _KEY.fullmatch(keys[0])
            or self.available_extensions
            or "sec-websocket-protocol" in headers
            or len(headers.get_all("origin")) > 1
        ):
            return super().accept(request)
        self.accept_called = True
        answer = Headers()
        answer["Date"] = ""  # uvicorn takes it out
        answer["Upgrade"] = "websocket"
        answer["Connection"] = "Upgrade"
        answer["Sec-WebSocket-Accept"] = accept_key(keys[0])
        return Response(101, "Switching Protocols", answer)

    def reject(self, status: StatusLike, text: str) -> Response:
        """Return what says why there will be no WebSocket."""
        number = HTTPStatus(status)
        return _response(problem_of(number, text.strip() or number.description or number.phrase))

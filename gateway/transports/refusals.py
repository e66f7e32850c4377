"""Refusals below ASGI: of what is no request, as the bytes of a whole answer. RFC 9457."""

from http import HTTPStatus
from typing import Any

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

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


class Handshake(ServerProtocol):
    """The server's half of a WebSocket's handshake."""

    def reject(self, status: StatusLike, text: str) -> Response:
        """Return what says why there will be no WebSocket."""
        number = HTTPStatus(status)
        said = text.strip() or number.description or number.phrase
        response = _response(problem_of(number, said))
        response.headers["sec-websocket-version"] = "13"  # as RFC 6455, 4.4, wants for any other
        return response

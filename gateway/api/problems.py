"""Errors as problem details, RFC 9457."""

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError, Unauthorized

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:push-gateway:problem:"


def respond(error: GatewayError) -> Response:
    """Return the problem document of an error."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return _response(
        error.status, error.code, error.title, error.detail, more=error.extra, headers=headers
    )


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer what Starlette refused: no such path, no such method."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"expected one of {headers.get('Allow', 'other methods')} but got {request.method}"
    return _response(error.status_code, code, phrase, detail, headers=headers)


async def on_bug(request: Request, error: Exception) -> Response:
    """Answer a mistake of ours, without showing it to strangers."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return respond(GatewayError("this is a mistake in the gateway; it was logged"))


def _response(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    more: dict[str, Any] | None = None,
    headers: dict[str, str],
) -> Response:
    document = {
        "type": TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **(more or {}),
    }
    return Response(
        msgspec.json.encode(document), status_code=status, headers=headers, media_type=MEDIA_TYPE
    )


class JSONResponse(Response):
    """JSON, encoded as everything else here is."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)

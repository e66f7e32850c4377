"""Request bodies: within their limit, of the media type that was expected."""

import asyncio
import re

from starlette.requests import Request

from gateway.errors import BadRequest, PayloadTooLarge, RequestTimeout, UnsupportedMediaType

PATIENCE = 60.0
"""Seconds for a body to come: a peer that sends a byte now and then must not stay for ever."""

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]*)', re.IGNORECASE)
_UTF8 = ("utf-8", "utf8", "us-ascii")


async def read(request: Request, limit: int) -> bytes:
    """Return the body. Stops reading where it becomes too large.

    Raises:
        PayloadTooLarge: it is larger than `limit` bytes, or says that it will be.
        BadRequest: its declared length is no number.
        RequestTimeout: it comes too slowly.
        UnsupportedMediaType: it is compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"expected no Content-Encoding but got {encoding[:40]!r}")
    declared = request.headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit() and len(declared) < 20):
        raise BadRequest(f"expected a number as Content-Length but got {declared[:20]!r}")
    if int(declared) > limit:
        raise PayloadTooLarge(f"expected at most {limit} bytes but got {declared}")
    try:
        async with asyncio.timeout(PATIENCE):
            return await _read(request, limit)
    except TimeoutError:
        raise RequestTimeout(f"expected the whole body within {PATIENCE:g} s") from None


async def _read(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    left = limit
    async for chunk in request.stream():
        chunks.append(chunk)
        left -= len(chunk)
        if left < 0:
            raise PayloadTooLarge(f"expected at most {limit} bytes but more came")
    return b"".join(chunks)


def media_type(request: Request) -> str:
    """Return the media type of the body in lower case, without parameters; empty for none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(media_type: str) -> bool:
    """Tell whether bodies of this type are JSON. A body of no type is taken for it."""
    return media_type in ("", "application/json") or media_type.endswith("+json")


def expect_json(request: Request) -> None:
    """Check that the body is meant to be JSON. Raises `UnsupportedMediaType`."""
    found = media_type(request)
    if not is_json(found):
        raise UnsupportedMediaType(f"expected application/json but got {found[:80]!r}")
    expect_utf8(request)


def expect_utf8(request: Request) -> None:
    """Check that the body is not said to be in another charset. Raises `UnsupportedMediaType`."""
    found = _CHARSET.search(request.headers.get("content-type", ""))
    if found and found[1].lower() not in _UTF8:
        raise UnsupportedMediaType(f"expected UTF-8 but got the charset {found[1][:40]!r}")

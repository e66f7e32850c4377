"""Request bodies: within their limit, of the media type that was expected."""

from starlette.requests import Request

from gateway.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType


async def read(request: Request, limit: int) -> bytes:
    """Return the body. Stops reading where it becomes too large.

    Raises:
        PayloadTooLarge: it is larger than `limit` bytes, or says that it will be.
        BadRequest: its declared length is no number.
    """
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit():
        raise BadRequest(f"expected a number as Content-Length but got {declared[:20]!r}")
    if int(declared) > limit:
        raise PayloadTooLarge(f"expected at most {limit} bytes but got {declared}")
    body = b""
    async for chunk in request.stream():
        body = body + chunk if body else chunk
        if len(body) > limit:
            raise PayloadTooLarge(f"expected at most {limit} bytes")
    return body


def media_type(request: Request) -> str:
    """Return the media type of the body, without parameters.

    Raises:
        UnsupportedMediaType: it is in another charset than UTF-8, or compressed.
    """
    text, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.lower().replace('"', "").partition("charset=")[2].strip()
    if charset and charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType(f"expected UTF-8 but got the charset {charset[:40]!r}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMediaType(f"expected no Content-Encoding but got {encoding[:40]!r}")
    return text.strip().lower()


def expect_json(request: Request) -> None:
    """Check that the body is meant to be JSON. Raises `UnsupportedMediaType`."""
    found = media_type(request)
    if found and found != "application/json" and not found.endswith("+json"):
        raise UnsupportedMediaType(f"expected application/json but got {found[:80]!r}")

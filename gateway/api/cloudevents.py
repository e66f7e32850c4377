"""CloudEvents over HTTP: the binary, the structured and the batched content mode.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.requests import Request

from gateway.api import bodies
from gateway.channels import check_name
from gateway.dispatch import decode
from gateway.errors import BadRequest, UnsupportedMediaType
from gateway.events import JSON, SPEC_VERSION, Event

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
MAX_BATCH = 1000
"""Events of one request: they are appended in one step, in which nothing else happens."""

_NAME = re.compile(r"[a-z0-9]{1,40}")
_ATTRIBUTES = frozenset(Event.__struct_fields__) - {"extensions", "data"}


async def read(request: Request, limit: int) -> list[Event]:
    """Return the events of a request, in whichever content mode it is.

    Raises:
        BadRequest: what the specification demands is missing or wrong.
        UnsupportedMediaType: the body is none of the three modes.
        PayloadTooLarge: the body is larger than `limit` bytes.
    """
    media_type = bodies.media_type(request)
    body = await bodies.read(request, limit)
    if media_type == BATCH:
        documents = decode(body)
        if not isinstance(documents, list) or len(documents) > MAX_BATCH:
            raise BadRequest(f"expected an array of at most {MAX_BATCH} CloudEvents")
        return [_event(document) for document in documents]
    if media_type == STRUCTURED:
        return [_event(decode(body))]
    if "ce-specversion" in request.headers:
        return [_event(_binary(request.headers, media_type, body))]
    raise UnsupportedMediaType(
        f"expected {STRUCTURED}, {BATCH} or ce- headers but got {media_type[:80]!r}"
    )


def _binary(headers: Mapping[str, str], media_type: str, body: bytes) -> dict[str, Any]:
    """Return the event whose attributes are headers, in the form of the JSON format."""
    document: dict[str, Any] = {
        name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")
    }
    if media_type:
        document["datacontenttype"] = media_type
    if not body:
        return document
    if media_type in ("", JSON) or media_type.endswith("+json"):
        document["data"] = decode(body)
    else:
        document["data_base64"] = base64.b64encode(body).decode()
    return document


def _event(document: object) -> Event:
    """Return the event that a document of the JSON format describes. Raises `BadRequest`."""
    if not isinstance(document, dict):
        raise BadRequest(f"expected a CloudEvent, a JSON object, but got {str(document)[:80]}")
    if document.get("specversion") != SPEC_VERSION:
        raise BadRequest(f'expected "specversion": "1.0" but got {document.get("specversion")!r}')
    _check_attributes(document)
    extensions = {
        name: value
        for name, value in document.items()
        if name not in _ATTRIBUTES and name not in ("data", "specversion") and value is not None
    }
    known = {name: document[name] for name in _ATTRIBUTES if document.get(name) is not None}
    return Event(data=document.get("data", msgspec.UNSET), extensions=extensions, **known)


def _check_attributes(document: dict[str, Any]) -> None:
    for name in ("id", "source", "type"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise BadRequest(f"expected a CloudEvent with {name!r}, a non-empty string")
    if "data" in document and "data_base64" in document:
        raise BadRequest("expected 'data' or 'data_base64' but got both")
    for name, value in document.items():
        if name in ("data", "data_base64"):
            continue
        if not _NAME.fullmatch(name):
            raise BadRequest(
                f"expected attribute names of lower-case letters and digits but got {name[:80]!r}"
            )
        if not isinstance(value, str | bool | int | None) or (
            name in _ATTRIBUTES and not isinstance(value, str | None)
        ):
            raise BadRequest(
                f"expected the attribute {name!r} to be a string but got {value!r:.80}"
            )
    if document.get("channel") is not None:
        check_name(document["channel"])

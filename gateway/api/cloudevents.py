"""CloudEvents over HTTP: the binary, the structured and the batched content mode.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from starlette.requests import Request

from gateway.api import bodies
from gateway.channels import check_name
from gateway.errors import BadRequest, UnsupportedMediaType
from gateway.events import SPEC_VERSION, Event
from gateway.policy.documents import decode

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
MAX_BATCH = 1000
"""Events of one request: they are appended in one step, in which nothing else happens."""

_NAME = re.compile(r"[a-z0-9]{1,40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_URI = r"[!#$%&'()*+,./:;=?@\[\]_~0-9A-Za-z-]+"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FORMS = {
    "source": (re.compile(_URI), "a URI reference"),
    "dataschema": (re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:" + _URI), "an absolute URI"),
    "datacontenttype": (re.compile(rf"{_TOKEN}/{_TOKEN}(\s*;.*)?"), "a media type"),
}
_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_INT32 = range(-(2**31), 2**31)
_DATA = ("data", "data_base64")
_ATTRIBUTES = frozenset(Event.__struct_fields__) - {"extensions", *_DATA}


async def read(request: Request, limit: int) -> list[Event]:
    """Return the events of a request, in whichever content mode it is.

    Raises:
        BadRequest: what the specification demands is missing or wrong.
        UnsupportedMediaType: the body is none of the three modes.
        PayloadTooLarge: the body is larger than `limit` bytes.
    """
    media_type = bodies.media_type(request)
    if media_type in (BATCH, STRUCTURED):
        bodies.expect_utf8(request)
        body = await bodies.read(request, limit)
        return list(_batch(decode(body))) if media_type == BATCH else [_event(decode(body))]
    if "ce-specversion" in request.headers:
        if bodies.is_json(media_type):
            bodies.expect_utf8(request)
        return [_event(_binary(request.headers, await bodies.read(request, limit)))]
    raise UnsupportedMediaType(
        f"expected {STRUCTURED}, {BATCH} or ce- headers but got {media_type[:80]!r}"
    )


def _batch(documents: object) -> Iterator[Event]:
    if not isinstance(documents, list):
        raise BadRequest(f"expected an array of CloudEvents but got {documents!r:.80}")
    if len(documents) > MAX_BATCH:
        raise BadRequest(f"expected at most {MAX_BATCH} CloudEvents but got {len(documents)}")
    for number, document in enumerate(documents, 1):
        try:
            yield _event(document)
        except BadRequest as error:
            raise BadRequest(f"event {number} of {len(documents)}: {error.detail}") from None


def _binary(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Return the event whose attributes are headers, in the form of the JSON format."""
    document: dict[str, Any] = {
        name[3:]: _header_value(name, value)
        for name, value in headers.items()
        if name.startswith("ce-")
    }
    for name in ("datacontenttype", *_DATA):
        if name in document:
            raise BadRequest(
                f"expected the data in the body, its type in Content-Type, but got ce-{name}"
            )
    content_type = headers.get("content-type", "").strip()
    media_type = content_type.partition(";")[0].strip().lower()
    if content_type:
        document["datacontenttype"] = content_type
    if body:
        document |= _data(media_type, body)
    return document


def _data(media_type: str, body: bytes) -> dict[str, Any]:
    """Return the member that holds the data: JSON as it is, text as a string, the rest as bytes."""
    if bodies.is_json(media_type):
        return {"data": decode(body)}
    if media_type.startswith("text/"):
        try:
            return {"data": body.decode()}
        except UnicodeDecodeError:
            pass
    return {"data_base64": base64.b64encode(body).decode()}


def _header_value(name: str, value: str) -> str:
    """Undo what the binding, section 3.1.3.2, has senders do with values. Raises `BadRequest`."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest(
            f"expected percent-encoded UTF-8 in {name} but got {value[:80]!r}"
        ) from None


def _event(document: object) -> Event:
    """Return the event that a document of the JSON format describes. Raises `BadRequest`."""
    if not isinstance(document, dict):
        raise BadRequest(f"expected a CloudEvent, a JSON object, but got {document!r:.80}")
    if document.get("specversion") != SPEC_VERSION:
        raise BadRequest(
            f'expected "specversion": "1.0" but got {document.get("specversion")!r:.80}'
        )
    _check_data(document)
    attributes = {
        name: value
        for name, value in document.items()
        if value is not None and name not in ("specversion", *_DATA)
    }
    for name in ("id", "source", "type"):
        if name not in attributes:
            raise BadRequest(f"expected a CloudEvent with {name!r}")
    for name, value in attributes.items():
        _check_attribute(name, value)
    known = {name: attributes.pop(name) for name in _ATTRIBUTES & attributes.keys()}
    data = {name: document[name] for name in _DATA if name in document}
    return Event(extensions=attributes, **known, **data)


def _check_data(document: dict[str, Any]) -> None:
    if "data_base64" not in document:
        return
    if "data" in document:
        raise BadRequest("expected 'data' or 'data_base64' but got both")
    try:
        base64.b64decode(document["data_base64"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise BadRequest("expected 'data_base64' to be a string of Base64") from None


def _check_attribute(name: str, value: object) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"expected attribute names of lower-case letters and digits but got {name[:80]!r}"
        )
    if name in _ATTRIBUTES:
        _check_known(name, value)
    elif isinstance(value, str):
        _check_text(name, value)
    elif not isinstance(value, bool) and not (isinstance(value, int) and value in _INT32):
        raise BadRequest(
            f"expected {name!r} to be a string, a boolean or a 32-bit integer but got {value!r:.80}"
        )


def _check_known(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise BadRequest(f"expected {name!r} to be a non-empty string but got {value!r:.80}")
    _check_text(name, value)
    if name == "channel":
        check_name(value)
    elif name == "time":
        try:
            msgspec.convert(value, _Time)
        except msgspec.ValidationError:
            raise BadRequest(f"expected 'time' as in RFC 3339 but got {value!r:.80}") from None
    elif name in _FORMS:
        form, description = _FORMS[name]
        if not form.fullmatch(value):
            raise BadRequest(f"expected {name!r} to be {description} but got {value!r:.80}")


def _check_text(name: str, value: str) -> None:
    if _CONTROL.search(value):
        raise BadRequest(f"expected no control characters in {name!r} but got {value!r:.80}")

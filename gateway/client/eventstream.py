"""A parser of `text/event-stream`. No I/O.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.client.frames import Refused

MAX_BLOCK = 64 << 20
"""Characters of one block beyond which the other side cannot be meant seriously."""

_LINE = re.compile(r"([^\r\n]*)(?:\r\n|\n|\r)")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of an event stream, as it is dispatched. Without data it only carries an id."""

    name: str
    data: str
    last_event_id: str


class Parser:
    """Turns the bytes of an event stream, however they are cut, into blocks.

    Unlike a browser it also gives out a block that has an id but no data, because the id moves
    the position of the stream.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode
        self._text = ""
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""
        self._id_came = False

    def feed(self, chunk: bytes) -> Iterator[Block]:
        """Take some bytes and give out the blocks that they complete.

        Raises:
            Refused: if a block is larger than `MAX_BLOCK`.
        """
        text = self._decode(chunk)
        if self._after_cr and text:  # the other half of a CRLF that was cut in two
            text = text.removeprefix("\n")
            self._after_cr = False
        self._text += text
        end = 0
        for line in _LINE.finditer(self._text):
            end = line.end()
            if block := self._take(line[1]):
                yield block
        self._after_cr = self._after_cr or text.endswith("\r")
        self._text = self._text[end:]
        if len(self._text) + self._size > MAX_BLOCK:
            raise Refused(f"the gateway sent an event of more than {MAX_BLOCK} characters")

    def _take(self, line: str) -> Block | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._size += len(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
            self._id_came = True
        return None

    def _dispatch(self) -> Block | None:
        block = None
        if self._data or self._id_came:
            block = Block(self._name or "message", "\n".join(self._data), self._id)
        self._name, self._data, self._size, self._id_came = "", [], 0, False
        return block

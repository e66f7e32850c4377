"""The Lua scripts, and the shared round trips that carry their calls."""

import asyncio
from collections import deque
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, TimeoutError

from gateway.broker.client import translate
from gateway.broker.line import Command, Line
from gateway.broker.silence import Silence
from gateway.errors import BrokerUnavailable

MAX_BATCH = 256
"""Calls that share a round trip. More would make the first of them wait for the last."""
BATCH_BYTES = 1 << 20
"""Bytes of arguments that are enough for a round trip: to pack and write hundreds of megabytes in
one go would hold up everybody."""

Argument = str | bytes | int


class Script(NamedTuple):
    """A script and the digest by which the server knows it."""

    name: str
    source: bytes
    digest: str


@cache
def scripts() -> dict[str, Script]:
    """Return all scripts in `lua/`, each behind the prelude that all share.

    All at once, and at the start: later there may be no file descriptor left to read one with.
    """
    folder = files("gateway.broker") / "lua"
    sources = {each.name.removesuffix(".lua"): each.read_bytes() for each in folder.iterdir()}
    prelude = sources.pop("prelude")
    return {
        name: Script(name, prelude + body, sha1(prelude + body, usedforsecurity=False).hexdigest())
        for name, body in sources.items()
    }


def script(name: str) -> Script:
    """Return the script in `lua/<name>.lua`."""
    return scripts()[name]


class _Call(NamedTuple):
    script: Script
    keys: list[str]
    arguments: list[Argument]
    answer: asyncio.Future[Any]


class NotSynced(TimeoutError):
    """The server ran the scripts, and did not say in time that its disk has what they wrote."""


class Pipeline:
    """Calls scripts, in the order in which they were asked for.

    While one round trip is under way, calls gather for the next: concurrent requests share
    pipelines without waiting for each other on an idle system. While the broker is silent they are
    refused instead of waiting for it.
    """

    def __init__(self, redis: Redis, *, sync_ms: int = 0) -> None:
        """`sync_ms`: answer only when the server has what was written on its disk, and wait so long
        for that. It needs Redis 7.2 or Valkey, with an append-only file.
        """
        scripts()
        self._line = Line(redis)
        self._sync_ms = sync_ms
        self._waiting: deque[_Call] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._silence = Silence()

    async def call(self, name: str, keys: list[str], arguments: list[Argument]) -> Any:
        """Run a script and return its answer.

        Cancelling the caller takes the call back if it was not sent yet.

        Raises:
            BrokerUnavailable: whether the script ran is then unknown.
        """
        if self._silence.lasts and (self._silence.resting or self._flushing):
            raise _silence()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(script(name), keys, arguments, answer))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await answer

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch = self._batch()
                wanted = [call for call in batch if not call.answer.done()]
                if wanted:
                    await self._settle(wanted)
        finally:
            self._flushing = None

    def _batch(self) -> list[_Call]:
        """Take the next calls, until they are enough: at least one, however large."""
        batch: list[_Call] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < BATCH_BYTES:
            call = self._waiting.popleft()
            batch.append(call)
            size += sum([len(each) for each in call.arguments if not isinstance(each, int)])
        return batch

    async def _settle(self, batch: list[_Call]) -> None:
        """Send a batch and give each of its calls its own answer, whatever happens."""
        try:
            answers = await self._ask(batch)
        except TimeoutError as error:
            self._silence.begin()
            batch += self._waiting  # they would wait as long, and in vain as well
            self._waiting.clear()
            answers = [error] * len(batch)
        except (RedisError, OSError) as error:
            self._silence.end()
            answers = [error] * len(batch)
        except asyncio.CancelledError:
            for call in batch:
                call.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001  a mistake of ours, for those who called to tell
            answers = [error] * len(batch)
        else:
            self._silence.end()
        for call, answer in zip(batch, answers, strict=True):
            _resolve(call.answer, answer)

    async def _ask(self, batch: list[_Call]) -> list[Any]:
        """Send a batch; what did not run, because the server is new or was emptied, once again."""
        answers = await self._send(batch)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            await self._load({batch[i].script for i in unknown})
            again = await self._send([batch[i] for i in unknown])
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        return answers

    async def _send(self, batch: list[_Call]) -> list[Any]:
        commands: list[Command] = [
            ("EVALSHA", call.script.digest, len(call.keys), *call.keys, *call.arguments)
            for call in batch
        ]
        if not self._sync_ms:
            return await self._line.ask(commands)
        *answers, synced = await self._line.ask([*commands, ("WAITAOF", 1, 0, self._sync_ms)])
        if isinstance(synced, Exception):
            raise synced
        if not synced[0]:
            raise NotSynced("the broker did not flush to its disk in time")
        return answers

    async def _load(self, scripts: set[Script]) -> None:
        for each in scripts:
            await self._line.call("SCRIPT", "LOAD", each.source)


def _silence() -> BrokerUnavailable:
    return BrokerUnavailable("the broker left an earlier call unanswered")


def _resolve(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():  # the caller went away
        return
    if isinstance(answer, Exception):
        future.set_exception(translate(answer))
    else:
        future.set_result(answer)

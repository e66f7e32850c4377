"""Who sends commands: one sender for each key, who sends the next when the last was answered."""

import asyncio
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.e2e.chaos.history import Answer, Sent, Task

PATIENCE = 4.0
"""Seconds that a sender waits for an answer."""
PACE = (0.05, 0.3)
"""Seconds between an answer and the next command, and between two tries."""
GRACE = 20.0
"""Seconds for which a sender goes on with its last command once it was told to stop."""

UNKNOWN = "unknown"
"""In place of the code of a refusal: nobody knows what became of the command."""
PASSING = {"broker-unavailable", "overloaded", "stream-full"}
"""Codes of refusals after which it makes sense to ask again."""

KINDS = {"do": 0.92, "flaky": 0.03, "reject": 0.04, "poison": 0.01}
SECONDS = (0.0, 0.0, 0.02, 0.1, 0.6)
"""What handlers take."""


class Reply(NamedTuple):
    """What came back: the id of the command, or the code of a refusal."""

    id: str = ""
    refusal: str = ""


class Sender(ABC):
    """Sends the commands of one key, and writes down what it is told."""

    def __init__(self, key: str, url: str, numbers: Iterator[int], chance: random.Random) -> None:
        self.sent: list[Sent] = []
        self.replies = 0
        self._key = key
        self._url = url
        self._numbers = numbers
        self._chance = chance
        self._stopped_at: float | None = None

    def stop(self) -> None:
        """Send nothing new."""
        self._stopped_at = time.monotonic()

    async def run(self) -> None:
        """Send commands until told to stop."""
        deeds = {
            self._send: 0.82,
            self._send_once: 0.08,
            self._send_again: 0.04,
            self._send_something_else: 0.03,
            self._send_rubbish: 0.03,
        }
        while self._stopped_at is None:
            (deed,) = self._chance.choices(list(deeds), list(deeds.values()))
            await deed()
            await self._rest()

    async def _rest(self) -> None:
        await asyncio.sleep(self._chance.uniform(*PACE))

    async def _send(self) -> Sent:
        """Send a command under a key, again and again until there is an answer that counts."""
        sent = self._new()
        await self._until_known(sent, sent.task, self._name(sent))
        return sent

    async def _send_once(self) -> None:
        """Send a command without a key: without an answer nobody knows what became of it."""
        sent = self._new()
        reply = await self._reply(sent, sent.task, None)
        sent.refusal = "" if reply.refusal in (UNKNOWN, "broker-unavailable") else reply.refusal

    async def _send_again(self) -> None:
        """Send a command whose acceptance is known once more: it must be the same one."""
        sent = await self._send()
        await self._until_known(sent, sent.task, self._name(sent))

    async def _send_something_else(self) -> None:
        """Send another command under a key that was used already."""
        first = await self._send()
        other = self._new()
        if first.answers:
            await self._until_known(other, other.task, self._name(first))

    async def _send_rubbish(self) -> None:
        """Send what the schema does not allow."""
        sent = self._new()
        await self._until_known(
            sent, msgspec.structs.replace(sent.task, kind="unheard-of"), self._name(sent)
        )

    def _new(self) -> Sent:
        (kind,) = self._chance.choices(list(KINDS), list(KINDS.values()))
        task = Task(
            number=next(self._numbers),
            key=self._key,
            kind=kind,
            seconds=self._chance.choice(SECONDS),
        )
        sent = Sent(task=task, sent=time.monotonic())
        self.sent.append(sent)
        return sent

    def _name(self, sent: Sent) -> str:
        return f"task-{sent.task.number}"

    async def _until_known(self, sent: Sent, task: Task, name: str) -> None:
        while True:
            reply = await self._reply(sent, task, name)
            if reply.id:
                return
            if reply.refusal not in PASSING | {UNKNOWN}:
                sent.refusal = reply.refusal
                return
            if self._stopped_at is not None and time.monotonic() > self._stopped_at + GRACE:
                return
            await self._rest()

    async def _reply(self, sent: Sent, task: Task, name: str | None) -> Reply:
        asked = time.monotonic()
        path = "/poison" if task.kind == "poison" else "/work"
        reply = await self._ask(path, task, name)
        if reply.id:
            sent.answers.append(Answer(asked, time.monotonic(), reply.id))
        self.replies += 1
        return reply

    @abstractmethod
    async def _ask(self, path: str, task: Task, name: str | None) -> Reply:
        """Send a command and return what came back."""

    @abstractmethod
    async def close(self) -> None:
        """Give the connection up."""


class OverHTTP(Sender):
    """Posts its commands."""

    def __init__(self, key: str, url: str, numbers: Iterator[int], chance: random.Random) -> None:
        super().__init__(key, url, numbers, chance)
        self._http = httpx.AsyncClient(
            base_url=url, timeout=PATIENCE, trust_env=False, verify=False
        )

    async def _ask(self, path: str, task: Task, name: str | None) -> Reply:
        headers = {"Content-Type": "application/json"}
        if name is not None:
            headers["Idempotency-Key"] = f'"{name}"'
        try:
            answer = await self._http.post(path, content=msgspec.json.encode(task), headers=headers)
        except httpx.TransportError:
            return Reply(refusal=UNKNOWN)
        body = answer.json()
        if answer.status_code == 202:
            return Reply(id=body["id"])
        return Reply(refusal=body["code"])

    async def close(self) -> None:
        await self._http.aclose()


class OverWebSocket(Sender):
    """Sends its commands over a WebSocket, and opens another one when it is lost."""

    _websocket: ClientConnection | None = None

    async def _ask(self, path: str, task: Task, name: str | None) -> Reply:
        command: dict[str, Any] = {"path": path, "data": msgspec.to_builtins(task)}
        if name is not None:
            command["idempotency_key"] = name
        try:
            async with asyncio.timeout(PATIENCE):
                websocket = await self._connected()
                await websocket.send(json.dumps({"id": 1, "command": command}))
                frame = json.loads(await websocket.recv())
                while frame.get("id") != 1:  # a sign of life, or a goodbye
                    frame = json.loads(await websocket.recv())
        except (OSError, TimeoutError, WebSocketException):
            await self.close()
            return Reply(refusal=UNKNOWN)
        if "accepted" in frame:
            return Reply(id=frame["accepted"]["id"])
        return Reply(refusal=frame["error"]["code"])

    async def _connected(self) -> ClientConnection:
        if self._websocket is None:
            address = f"{self._url.replace('http', 'ws', 1)}/ws"
            self._websocket = await connect(
                address, open_timeout=None, close_timeout=0.1, ping_interval=None, proxy=None
            )
        return self._websocket

    async def close(self) -> None:
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            with suppress(OSError, WebSocketException):
                await websocket.close()

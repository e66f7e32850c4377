"""Revocation: shutting somebody out, on all serving processes at once.

A change is kept at the broker and told through the event log, in one step. Every process hears of
it where it hears of events, so within milliseconds; from then on it asks nobody but itself.
"""

import logging
import random
from collections.abc import Iterator

import msgspec

from gateway.blocks import Block, Blocks
from gateway.broker.blocklist import NOTICES, BlockList, Notice
from gateway.errors import CloseCode, UnknownConnection
from gateway.hub.hub import Hub
from gateway.hub.subscription import Connection
from gateway.principals import ANYBODY, AuthType

logger = logging.getLogger(__name__)

RETURN_MS = 1000
"""Who is only sent away comes back after a random delay of up to this."""

_decode = msgspec.json.Decoder(Notice).decode


class Revocation:
    """What this process does about blocks, and about connections that an operator closes."""

    channel = NOTICES

    def __init__(self, blocks: Blocks, kept: BlockList, hub: Hub, node: str) -> None:
        """`blocks` are what others here look up; `node` names this process."""
        self._blocks = blocks
        self._kept = kept
        self._hub = hub
        self.node = node

    # What an operator asks

    async def blocks(self) -> list[Block]:
        """Return the blocks that last, newest first. Raises `BrokerUnavailable`."""
        return await self._kept.all()

    async def block(self, block: Block) -> None:
        """Shut somebody out, here and everywhere. Raises `TooManyBlocks`, `BrokerUnavailable`."""
        await self._kept.add(block)
        self._block(block)

    async def unblock(self, id: str) -> None:
        """Let somebody in again. Raises `UnknownBlock`, `BrokerUnavailable`."""
        await self._kept.remove(id)
        self._blocks.remove(id)

    async def close(self, id: str) -> bool:
        """Close a connection by its id. Returns False if that was left to another process.

        Raises:
            UnknownConnection: this process had it, and has it no more; or it is no id at all.
            BrokerUnavailable: the other process cannot be told.
        """
        node, _, number = id.partition("-")
        if not (number.isascii() and number.isdigit() and len(number) < 16):
            raise UnknownConnection(f"expected the id of a connection but got {id[:80]!r}")
        if node != self.node:
            await self._kept.notify(Notice(close=id))
            return False
        if not self._close(id):
            raise UnknownConnection(f"there is no connection {id}, or no longer")
        return True

    def connections(self) -> Iterator[Connection]:
        """Give the connections of this process's callers, oldest first."""
        return (each for each in self._hub.connections() if each.caller is not ANYBODY)

    def id_of(self, connection: Connection) -> str:
        return f"{self.node}-{connection.number}"

    def end(self, prefixes: frozenset[str]) -> None:
        """Close what API keys opened that are no more. Who has another one comes back with it."""
        for connection in self.connections():
            principal = connection.caller.principal
            if principal.type is AuthType.API_KEY and principal.token_id in prefixes:
                connection.goodbye(CloseCode.TOKEN_EXPIRED, random.randint(0, RETURN_MS))

    # What the feed hears

    def hear(self, notice: bytes) -> None:
        """Do what another process, or this one, told all of them."""
        try:
            said = _decode(notice)
        except msgspec.DecodeError as error:  # of a newer version, which may tell more
            logger.warning("a notice cannot be understood: %s", error)
            return
        if said.block is not None:
            self._block(said.block)
        if said.unblock:
            self._blocks.remove(said.unblock)
        if said.close.startswith(f"{self.node}-"):
            self._close(said.close)

    async def read(self) -> None:
        """Learn of all blocks, because some of what was told may have been missed."""
        self._blocks.replace(await self._kept.all())
        self._enforce()

    def _block(self, block: Block) -> None:
        self._blocks.add(block)
        self._enforce()

    def _enforce(self) -> None:
        """Close the connections of all who are shut out."""
        for connection in self.connections():
            block = self._blocks.of(connection.caller.principal)
            if block is not None:
                connection.goodbye(block.close_code, 0)

    def _close(self, id: str) -> bool:
        connection = self._hub.connection(int(id.partition("-")[2]))
        if connection is None or connection.caller is ANYBODY:
            return False
        connection.goodbye(CloseCode.SHUTDOWN, random.randint(0, RETURN_MS))
        return True

"""The block list: what is kept of blocks, and how serving processes hear of changes."""

import time

import msgspec
from redis.asyncio import Redis

from gateway.blocks import Block
from gateway.broker.client import translated
from gateway.broker.keys import Keys
from gateway.broker.scripts import Pipeline
from gateway.errors import TooManyBlocks, UnknownBlock

MAX_BLOCKS = 10_000
"""Every serving process keeps all of them in memory."""
NOTICES = b"!notices"
"""The channel of what serving processes tell each other. No name of a channel may look like it, so
nobody can subscribe or publish to it."""


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an entry of that channel says: one of these."""

    block: Block | None = None
    """Somebody is blocked from now on."""
    unblock: str = ""
    """The id of a block that was lifted."""
    close: str = ""
    """The id of a connection that is to be closed."""


_decode = msgspec.json.Decoder(Block).decode


class BlockList:
    """Keeps blocks. A change and the notice of it are one step, so that no process misses it."""

    def __init__(self, redis: Redis, pipeline: Pipeline, keys: Keys, *, log_size: int) -> None:
        self._redis = redis
        self._pipeline = pipeline
        self._keys = keys
        self._log_size = log_size

    async def all(self) -> list[Block]:
        """Return the blocks that last, the newest first. Raises `BrokerUnavailable`."""
        with translated():
            kept = await self._redis.hgetall(self._keys.blocks)
            blocks = [_decode(each) for each in kept.values()]
            over = [each.id for each in blocks if _is_over(each)]
            if over:
                await self._redis.hdel(self._keys.blocks, *over)
        lasting = [each for each in blocks if not _is_over(each)]
        return sorted(lasting, key=lambda block: block.created_at, reverse=True)

    async def add(self, block: Block) -> None:
        """Keep a block, and tell of it.

        Raises:
            TooManyBlocks: there are as many as may be.
            BrokerUnavailable: it is then unknown whether it is kept.
        """
        document = msgspec.json.encode(block)
        for _ in range(2):
            added = await self._pipeline.call(
                "block",
                [self._keys.log, self._keys.events, self._keys.blocks],
                [*self._notice(Notice(block=block)), MAX_BLOCKS, block.id, document],
            )
            if added:
                return
            await self.all()  # forgets those that are over
        raise TooManyBlocks(f"expected at most {MAX_BLOCKS} blocks")

    async def remove(self, id: str) -> None:
        """Lift a block, and tell of it. Raises `UnknownBlock`, `BrokerUnavailable`."""
        removed = await self._pipeline.call(
            "unblock",
            [self._keys.log, self._keys.events, self._keys.blocks],
            [*self._notice(Notice(unblock=id)), id],
        )
        if not removed:
            raise UnknownBlock(f"there is no block {id[:80]!r}")

    async def notify(self, notice: Notice) -> None:
        """Tell all serving processes something. Raises `BrokerUnavailable`."""
        keys = [self._keys.log, self._keys.events]
        await self._pipeline.call("notify", keys, self._notice(notice))

    def _notice(self, notice: Notice) -> list[str | bytes | int]:
        return [self._log_size, NOTICES, msgspec.json.encode(notice)]


def _is_over(block: Block) -> bool:
    return block.until is not None and block.until <= time.time()

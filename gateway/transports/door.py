"""What every connection shares: the way to the hub, to the dispatcher, and the limits."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field

from gateway.channels import EARLIEST, Position, check_name
from gateway.dispatch import Dispatcher
from gateway.errors import UnknownChannel
from gateway.hub.hub import Hub
from gateway.policy.routes import Channels

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Door:
    """The inside of the gateway, as the transports see it."""

    hub: Hub
    channels: Channels
    dispatcher: Dispatcher
    max_subscriptions: int
    max_frame: int
    heartbeat: float
    """Seconds."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Requests of connections that are being worked on."""

    def check_channel(self, name: str) -> str:
        """Return `name` if it can be subscribed to. Raises `BadRequest`, `UnknownChannel`."""
        if self.channels.match(check_name(name)) is None:
            raise UnknownChannel(f"no configured channel pattern covers {name!r}")
        return name

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a request of a connection beside it. It must deal with its own errors."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a request of a connection failed", exc_info=error)


def parse_after(token: str | None) -> Position | str | None:
    """Read where a subscription shall begin. Raises `BadRequest`."""
    if token is None or token == EARLIEST:
        return token
    return Position.parse(token)

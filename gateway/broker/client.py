"""The only constructor of Redis clients, and the one place that translates what they raise.

Commands and blocking reads have clients of their own. A command has `[broker] timeout` to answer
in; a read that blocks is silent by design, so it gets that much longer than it may block.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.maint_notifications import MaintNotificationsConfig

from gateway.broker.address import Address, parse, redacted
from gateway.broker.checks import check_server
from gateway.broker.connections import OverTCP, OverTLS, OverUnixSocket
from gateway.broker.embedded import EmbeddedServer
from gateway.broker.sentinel import FollowingOverTCP, FollowingOverTLS, NoMaster, Sentinels
from gateway.config import BrokerConfig
from gateway.errors import BrokerUnavailable, StartError

LONGEST_BLOCK = 5.0
"""Seconds that a read may block unless its client is told otherwise."""

MAX_CONNECTIONS = 64
"""Of one client. Appends share pipelines, so a handful is in use; beyond it, calls wait in turn."""

_CONNECTIONS = {False: OverTCP, True: OverTLS}
_FOLLOWING = {False: FollowingOverTCP, True: FollowingOverTLS}


class Clients:
    """The connections of one process to the log.

    Nothing is retried behind the caller's back: a request that was sent may have been carried out,
    and a repeated append is a duplicate. A lost connection is opened anew by the next call.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        """Prepare clients for `url`; nothing is connected yet. Raises `StartError`."""
        try:
            address = parse(url)
        except ValueError as mistake:
            raise StartError(str(mistake)) from None
        self._timeout = timeout
        self._opened: list[Redis] = []
        self.sentinels = self._watching(address) if address.master else None
        """Those who know where the server is, if the URL names any."""
        self._server = _server(address, self.sentinels)
        self.url = redacted(url)
        """The URL without its password, for people to read."""
        self.commands = self._open(
            BlockingConnectionPool(
                **self._options("gateway-commands", timeout),
                max_connections=MAX_CONNECTIONS,
                timeout=timeout,
            )
        )
        """For everything that is answered at once; each call fails after `timeout` seconds."""

    def blocking(self, *, longest: float = LONGEST_BLOCK) -> Redis:
        """Return a new client for reads that block for up to `longest` seconds.

        `BLOCK 0` is not for it: a server that stays silent for `timeout` seconds beyond `longest`
        counts as dead, however its host died. It is closed with all the others.
        """
        return self._open(
            ConnectionPool(
                **self._options("gateway-reads", longest + self._timeout),
                max_connections=MAX_CONNECTIONS,
            )
        )

    def where(self) -> str:
        """Return `url`; where Sentinels are asked, with what they said."""
        if self.sentinels is None or self.sentinels.master is None:
            return self.url
        return f"{self.url}, where the master is {self.sentinels.master},"

    async def close(self) -> None:
        """Close every connection, also those that are in use. May be called more than once.

        A call that is under way meanwhile fails, or opens one more connection for the next `close`.
        """
        for client in tuple(self._opened):
            await client.aclose()

    def _open(self, pool: ConnectionPool) -> Redis:
        client = Redis.from_pool(pool)
        self._opened.append(client)
        return client

    def _watching(self, address: Address) -> Sentinels:
        return Sentinels(
            address.master,
            [
                self._open(
                    ConnectionPool(
                        **address.sentinel_login,
                        **self._common("gateway-sentinel", self._timeout),
                        **_to_host(address, host, port),
                    )
                )
                for host, port in address.hosts
            ],
        )

    def _options(self, name: str, socket_timeout: float) -> dict[str, Any]:
        return self._server | self._common(name, socket_timeout)

    def _common(self, name: str, socket_timeout: float) -> dict[str, Any]:
        return {
            "client_name": name,  # so that CLIENT LIST tells what each connection is for
            "decode_responses": False,
            "protocol": 3,
            "socket_timeout": socket_timeout,
            "socket_connect_timeout": self._timeout,
            "retry": Retry(NoBackoff(), 0),
            # Where these are on, the pool does not look whether an idle connection was closed by
            # its peer, and the first call after a restart of the server would fail.
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }


def _server(address: Address, sentinels: Sentinels | None) -> dict[str, Any]:
    """Return what redis-py must know of the server."""
    if sentinels:
        kind = {"connection_class": _FOLLOWING[address.tls], "sentinels": sentinels}
        return {**address.login, **address.tls_options, **kind}
    if address.path:
        return {**address.login, "connection_class": OverUnixSocket, "path": address.path}
    return {**address.login, **_to_host(address, *address.hosts[0])}


def _to_host(address: Address, host: str, port: int) -> dict[str, Any]:
    connection = {"connection_class": _CONNECTIONS[address.tls], "host": host, "port": port}
    return connection | address.tls_options


async def connect(config: BrokerConfig, *, url: str | None = None) -> Clients:
    """Return clients of a server that was found fit to hold the log.

    `url` stands in for the configured one, where the embedded server is used.

    Raises:
        StartError: the server cannot be reached, lets nobody in, or is not fit; says why.
    """
    address = url or config.url
    if address is None:
        raise StartError("expected a [broker] url, because no embedded server was started")
    clients = Clients(address, timeout=config.timeout)
    try:
        await check_server(
            clients.commands,
            where=clients.where,
            namespace=config.namespace,
            patience=config.timeout,
        )
    except BaseException:
        await clients.close()
        raise
    return clients


@asynccontextmanager
async def opened(config: BrokerConfig) -> AsyncIterator[Clients]:
    """Give the clients of the configured log; without a URL, of the embedded server that this runs.

    Raises `StartError`. At the end all clients are closed, then the server is stopped or left to
    the other processes that share it.
    """
    async with AsyncExitStack() as stack:
        url = config.url
        if url is None:
            url = (await stack.enter_async_context(EmbeddedServer(config.data_dir))).url
        clients = await connect(config, url=url)
        stack.push_async_callback(clients.close)
        if clients.sentinels:
            await stack.enter_async_context(_running(clients.sentinels.follow()))
        yield clients


@asynccontextmanager
async def _running(job: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do something beside the block, up to the end of the block. Raises what that raises."""
    task = asyncio.create_task(job)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@contextmanager
def translated() -> Iterator[None]:
    """Raise what Redis clients raise in this block as `translate` gives it."""
    try:
        yield
    except (RedisError, OSError) as error:
        meaning = translate(error)
        if meaning is error:
            raise
        raise meaning from error


def translate(error: Exception) -> Exception:
    """Return `BrokerUnavailable` if the broker is away or refuses, else `error` itself.

    Mistakes of the caller (`WRONGTYPE`, `NOSCRIPT`, ...) stay what they are. The sentence goes to
    strangers, so it names no host; the cause does.
    """
    cause = error.__cause__
    if isinstance(error, ConnectionError) and isinstance(cause, RedisError):
        # On a Unix socket redis-py hides what the server refused during the handshake.
        meaning = translate(cause)
        if meaning is not cause:
            return meaning
    for kinds, sentence in _SENTENCES:
        if isinstance(error, kinds):
            return BrokerUnavailable(sentence)
    if isinstance(error, ResponseError):
        # In a pipeline redis-py puts the failed command, with its arguments, before the reply.
        code = str(error).rpartition("caused error: ")[2].partition(" ")[0]
        if code in _CODES:
            return BrokerUnavailable(_CODES[code])
    return error


_SENTENCES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (  # the first that fits
    ((BusyLoadingError,), "the broker is still loading its data"),
    (
        (AuthenticationError, AuthorizationError, NoPermissionError),
        "the broker does not allow the gateway what it needs",
    ),
    ((NoMaster,), "the broker's Sentinels know no master"),
    ((TimeoutError,), "the broker did not answer in time"),
    ((ConnectionError, OSError), "the broker cannot be reached"),
    ((ReadOnlyError,), "the broker is a replica and takes no writes"),
    ((OutOfMemoryError,), "the broker has no memory left"),
    ((ClusterError, TryAgainError), "the broker's cluster is not in order"),
)

_CODES = {
    "MISCONF": "the broker cannot write to its disk",
    "NOREPLICAS": "the broker has too few replicas to take writes",
    "BUSY": "the broker is busy with a long script",
    "UNBLOCKED": "the broker became a replica",
}

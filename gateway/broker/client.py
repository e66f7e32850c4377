"""The only constructor of Redis clients, and the one place that translates what they raise.

Commands and blocking reads have clients of their own. A command has `[broker] timeout` to answer
in; a read that blocks is silent by design, so it gets that much longer than it may block.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
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

from gateway.broker.checks import check_server
from gateway.broker.embedded import EmbeddedServer
from gateway.config import BrokerConfig
from gateway.errors import BrokerUnavailable, StartError

LONGEST_BLOCK = 5.0
"""Seconds that a read may block unless its client is told otherwise."""

MAX_CONNECTIONS = 64
"""Of one client. Appends share pipelines, so a handful is in use; beyond it, calls wait in turn."""

_OPTIONS = frozenset(
    {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs"}
)
"""What the URL's query may say. Anything else would override how this module sets clients up."""


class _Closable(AbstractConnection):
    """A connection that may be closed by one task while another one opens or uses it.

    redis-py looks whether it is open and writes in another turn of the event loop; where it was
    closed in between, it would raise an `AttributeError`, as if that were a mistake of ours.
    """

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        if self._writer is None:
            raise ConnectionError("the connection was closed while it was in use")
        await super()._send_packed_command(command)

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Send a command. Who is cancelled meanwhile stays cancelled.

        redis-py waits with `asyncio.wait_for`, which up to Python 3.11 swallows a cancellation that
        comes in the very turn in which the bytes went out (gh-86296): a task that was told to end
        would go on to wait for the answer, and then for the next one.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        await super().send_packed_command(command, check_health)
        if task and task.cancelling() > before:
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError


class _OverTCP(_Closable, Connection):
    pass


class _OverTLS(_Closable, SSLConnection):
    pass


class _OverUnixSocket(_Closable, UnixDomainSocketConnection):
    pass


_CONNECTIONS = {"redis": _OverTCP, "rediss": _OverTLS, "unix": _OverUnixSocket}


class Clients:
    """The connections of one process to the log.

    Nothing is retried behind the caller's back: a request that was sent may have been carried out,
    and a repeated append is a duplicate. A lost connection is opened anew by the next call.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        """Prepare clients for `url`; nothing is connected yet. Raises `StartError`."""
        self._address = _parse(url)
        self._timeout = timeout
        self._opened: list[Redis] = []
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

    def _options(self, name: str, socket_timeout: float) -> dict[str, Any]:
        return self._address | {
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
            where=clients.url,
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
        yield clients


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


def redacted(url: str) -> str:
    """Return `url` without password and query, for messages and logs."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the configured URL"
    host = parts.hostname or ""
    if "@" in parts.path + parts.query + parts.fragment or not (host or parts.scheme == "unix"):
        return "the configured URL"  # a password with one of / ? # in it ended up anywhere
    user = f"{parts.username}@" if parts.username else ""
    bracketed = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{user}{bracketed}{port}{parts.path}"


def _parse(url: str) -> dict[str, Any]:
    """Return redis-py's arguments for `url`. Raises `StartError`, which never shows a password."""
    try:
        parts = urlsplit(url)
        mistake = _mistake(parts)
        if mistake is None:
            return {**parse_url(url), "connection_class": _CONNECTIONS[parts.scheme]}
    except ValueError:
        # What urllib raises may quote a password that has a slash in it.
        mistake = "has a part that cannot be read; in a password, percent-encode : / ? # [ ] @"
    raise StartError(f"expected redis://, rediss:// or unix:// but {redacted(url)} {mistake}")


def _mistake(parts: SplitResult) -> str | None:
    if parts.scheme not in ("redis", "rediss", "unix"):
        return "is none of them"
    unknown = sorted({name for name, _ in parse_qsl(parts.query)} - _OPTIONS)
    if unknown:
        return f"has the option {unknown[0]!r}; known are {', '.join(sorted(_OPTIONS))}"
    if parts.fragment:
        return "has a part after #; in a password, percent-encode : / ? # [ ] @"
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.strip("/"):
            return "has no absolute path: write unix:///path/to/socket"
        return None
    if not parts.hostname or parts.port == 0:
        return "names no host"
    if not (parts.path.strip("/") or "0").isdecimal():
        return "has a path that is not the number of a database"
    return None

"""Is this server fit to hold the log? Asked once, at the start; a no is one sentence."""

import asyncio
import logging
import os
import re
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from gateway.broker.keys import Keys
from gateway.broker.sentinel import NoMaster
from gateway.errors import StartError

OLDEST = (7, 0)
"""Of Redis: older ones lack commands that the log is made with. Any Valkey will do."""

_log = logging.getLogger(__name__)


async def check_server(
    client: Redis, *, where: Callable[[], str], namespace: str, patience: float
) -> None:
    """Return if the server can be reached, lets the gateway in and can hold a log.

    `where` tells where it is: with Sentinels, more after they were asked than before. A server that
    is still loading its data is waited for, up to `patience` seconds. Logs a warning if
    acknowledged writes would not survive a restart of the server.

    Raises:
        StartError: with what was expected of the server and what came.
    """
    try:
        info = await _info_when_loaded(client, patience)
        flaw = _flaw(info)
        if flaw is None:
            await _try_to_write(client, namespace)
            await _warn_if_forgetful(client, info, where())
    except (RedisError, OSError) as error:
        raise StartError(_sentence(where(), _reason(error, where(), patience))) from error
    if flaw is not None:
        raise StartError(_sentence(where(), flaw))


def _sentence(where: str, flaw: str) -> str:
    return f"expected a writable Redis 7.0 or newer, or Valkey, at {where} but {flaw}"


async def _info_when_loaded(client: Redis, patience: float) -> dict[str, Any]:
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        info: dict[str, Any] = await client.info()
        if not info.get("loading"):
            return info
        if asyncio.get_running_loop().time() > deadline:
            raise BusyLoadingError
        await asyncio.sleep(0.1)


def _flaw(info: dict[str, Any]) -> str | None:
    """What is wrong with a server that says this of itself, or None."""
    version = str(info.get("redis_version", "of no known version"))
    if info.get("server_name") != "valkey" and _version(version) < OLDEST:
        return f"the server there is Redis {version}"
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):
        return "the server there is a Sentinel: write redis+sentinel://host:port/name-of-the-master"
    if info.get("cluster_enabled"):
        return "the server there is part of a cluster, for which there is no edition yet"
    if info.get("role") != "master":
        primary = f"{info.get('master_host')}:{info.get('master_port')}"
        return f"the server there is a replica, which takes no writes, of {primary}"
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return (
            f"its maxmemory-policy is {policy}, by which a full server throws the log away: "
            "run CONFIG SET maxmemory-policy noeviction and put that into its configuration"
        )
    return None


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


async def _try_to_write(client: Redis, namespace: str) -> None:
    """Ask for a write that changes nothing, and for a script; raises what the server refuses with.

    `XX` sets only what is there already, and no command has this id. The server looks at its disk,
    its memory, its role and the user's rights all the same.
    """
    await client.set(Keys(namespace).status("start-check"), b"", xx=True)
    await client.eval("return 1", 0)


async def _warn_if_forgetful(client: Redis, info: dict[str, Any], where: str) -> None:
    if info.get("aof_enabled"):
        return
    try:
        snapshots = (await client.config_get("save")).get("save")
    except ResponseError:
        return  # a hosted server, whose persistence is its host's business
    loss = f"what came after its last snapshot (save {snapshots})" if snapshots else "everything"
    _log.warning(
        "the server at %s has no append-only file: when it stops, %s is lost; "
        "set appendonly yes in its configuration",
        where,
        loss,
    )


def _reason(error: BaseException, where: str, patience: float) -> str:
    """Say why the server could not be asked, by the most telling error behind `error`."""
    chain = list(_chain(error))
    for link in chain:
        match link:
            case NoMaster():
                return _no_master(link, where, patience)
            case BusyLoadingError():
                return f"it was still loading its data after {patience:g} s"
            case AuthenticationError():
                return _unauthenticated(str(link))
            case NoPermissionError():
                return f"its user there is not allowed what the gateway needs: {link}"
            case ResponseError():
                return _refusal(str(link))
            case ssl.SSLCertVerificationError():
                return f"its certificate is not accepted: {link.verify_message}"
            case ssl.SSLError():
                return f"no TLS connection comes about: {link.reason or link}"
    if any(isinstance(link, TimeoutError) for link in chain):
        doubt = "; does that port speak TLS?" if where.startswith("rediss") else ""
        return f"it did not answer within {patience:g} s{doubt}"
    for link in chain:
        if isinstance(link, OSError):
            return f"it cannot be reached: {_system_error(link)}"
    return f"what answers there does not speak as Redis does: {error}"


def _no_master(error: NoMaster, where: str, patience: float) -> str:
    """Say why the Sentinels do not tell where the master is."""
    name = where.rpartition("/")[2]
    cause = error.__cause__
    if cause is None or "No such master" in str(cause):
        return f"the Sentinels there watch no master named {name!r}"
    if "unknown command" in str(cause):
        return "what answers there is no Sentinel"
    reason = _reason(cause, where, patience)
    hint = "; give it as sentinel_password" if isinstance(cause, AuthenticationError) else ""
    return f"no Sentinel there can be asked: {reason}{hint}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what led to it; redis-py wraps some errors in others, not always with `from`."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unauthenticated(reply: str) -> str:
    if "HELLO must be called" in reply or "Authentication required" in reply:
        return "it asks for a password and the URL has none"
    return "the user name or the password in the URL is wrong"


def _refusal(reply: str) -> str:
    if "HELLO" in reply.upper() and "unknown command" in reply:
        return "the server there is older than Redis 6.0"
    return f"it refuses to be written to: {reply}"


def _system_error(error: OSError) -> str:
    """The system's own words. asyncio says 'Connect call failed' and lists every address."""
    numbers = re.findall(r"\[Errno (\d+)\] Connect call failed", str(error))
    if numbers:
        return os.strerror(int(numbers[-1]))
    return error.strerror or str(error)

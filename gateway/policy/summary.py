"""What is configured, as plain data: for `gateway check` to print, and for people to compare."""

from typing import Any
from urllib.parse import urlsplit

from gateway.config import ChannelConfig, Config
from gateway.policy import authentication
from gateway.policy.compiler import Policy
from gateway.policy.limits import describe
from gateway.policy.routes import CommandRoute


def summary(config: Config, policy: Policy) -> dict[str, Any]:
    """Return strings, numbers, lists and dictionaries. No password and no token is among them."""
    return {
        "file": str(config.file or ""),
        "broker": _broker(config),
        "namespace": config.broker.namespace,
        "server": f"{_scheme(config)}://{config.server.host}:{config.server.port}",
        "console": config.server.console,
        "demo": config.server.demo,
        "auth": authentication.summary(config.auth),
        "admin": bool(config.admin.tokens),
        "handlers": list(config.worker.handlers),
        "concurrency": config.worker.concurrency,
        "commands": [_command(route) for route in policy.commands],
        "streams": list(policy.commands.streams),
        "partitions": config.broker.partitions,
        "channels": [_channel(each) for each in policy.channels.configs],
        "feeds": [
            {"type": each.type, "when": each.when, "channels": list(each.channels)}
            for each in config.feeds
        ],
        "events": _producers(config),
        "limits": describe(policy.limits),
        "quotas": {
            name: value
            for name in config.quotas.__struct_fields__
            if (value := getattr(config.quotas, name)) is not None
        },
        "requests_per_ip": str(config.server.requests_per_ip),
        "trusted_proxies": list(config.server.trusted_proxies),
    }


def _broker(config: Config) -> str:
    if config.broker.url is None:
        return f"embedded, in {config.broker.data_dir}"
    parts = urlsplit(config.broker.url)  # of which the policy has made sure that it can be read
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _scheme(config: Config) -> str:
    return "https" if config.tls.certificate else "http"


def _command(route: CommandRoute) -> dict[str, Any]:
    config = route.config
    return {
        "path": config.path,
        "type": config.type,
        "stream": config.stream,
        "routes": [{"when": each.when, "stream": each.stream} for each in config.routes],
        "key": config.key,
        "schema": str(config.schema) if config.schema else None,
        "allow": config.allow,
    }


def _channel(config: ChannelConfig) -> dict[str, Any]:
    history = config.history
    return {
        "pattern": config.pattern,
        "history": {"size": history.size, "seconds": float(history.ttl)} if history else None,
        "subscribe": config.subscribe,
        "publish": config.publish,
        "read": history.allow if history else None,
    }


def _producers(config: Config) -> str:
    if config.events.anonymous:
        return "anybody may publish"
    count = len(config.events.tokens)
    who = []
    if count:
        who.append(f"producers with {'the token' if count == 1 else f'one of {count} tokens'}")
    if config.auth.configured and any(each.publish is not None for each in config.channels):
        who.append("whoever a channel's rule lets")
    return f"{' and '.join(who) or 'nobody'} may publish"

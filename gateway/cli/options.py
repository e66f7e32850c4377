"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.failures import ExitCode, Failure

DEFAULT_URL = "http://127.0.0.1:8080"

DEFAULT_CONFIG = Path("gateway.toml")

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The configuration file, or its folder.")
]

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="CONFIG",
        help="The configuration file, or its folder. Without it, gateway.toml in this folder.",
        rich_help_panel="The gateway",
        show_default=False,
    ),
]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Where the gateway is. Without it, where the gateway.toml in this folder says, "
        f"or {DEFAULT_URL}.",
        rich_help_panel="The gateway",
        show_default=False,
    ),
]

Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="The bearer token to show it; @FILE reads it from a file, where `ps` cannot see it.",
        rich_help_panel="The gateway",
        show_default=False,
    ),
]


def gateway_url(option: str | None) -> str:
    """The address of the gateway: what the option says, or the configuration in this folder.

    A configuration that does not tell is a failure: whatever else listens at the usual port is
    another gateway. Raises `ConfigError`, `Failure`.
    """
    from gateway.configfile import load

    if option is not None:
        return option
    if not DEFAULT_CONFIG.exists():
        return DEFAULT_URL
    config = load(DEFAULT_CONFIG)
    host, port = config.server.host, config.server.port
    if not port:
        text = f"expected --url, because in {DEFAULT_CONFIG} the port is any free one"
        raise Failure(text, code=ExitCode.USAGE)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if config.tls.certificate else 'http'}://{host}:{port}"


def read_token(option: str | None) -> str | None:
    """The token itself, from the file that the option names or from the option."""
    if option is None:
        return None
    token = read_argument_file(option).decode().strip() if option.startswith("@") else option
    if not token.isascii() or not token.isprintable() or not token:
        raise Failure("expected a token of printable ASCII characters", code=ExitCode.USAGE)
    return token


def read_argument_file(argument: str) -> bytes:
    """The contents of the file in an argument of the form `@FILE`."""
    path = Path(argument.removeprefix("@"))
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}", code=ExitCode.USAGE) from error

"""`gateway run`, `gateway serve` and `gateway work`: the processes themselves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.check import base_dir
from gateway.cli.failures import ExitCode, Failure
from gateway.cli.options import DEFAULT_CONFIG, ConfigPath

if TYPE_CHECKING:
    from gateway.broker.broker import Broker
    from gateway.config import Config
    from gateway.policy import Policy

RUN_EXAMPLES = """
[bold]Examples[/]

gateway run

gateway run shop/gateway.toml --port 9000 --data-dir /var/lib/gateway
"""

SERVE_EXAMPLES = """
[bold]Examples[/]

gateway serve

gateway serve /etc/gateway.toml --host 0.0.0.0 --workers 4
"""

WORK_EXAMPLES = """
[bold]Examples[/]

gateway work

gateway work /etc/gateway.toml --workers 2
"""

Host = Annotated[
    str | None,
    typer.Option(
        help="The address to listen on, instead of the configured one.", show_default=False
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65_535,
        help="The port to listen on, instead of the configured one; 0 takes any free one.",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where the embedded server keeps its data, instead of the configured directory.",
        show_default=False,
    ),
]
Workers = Annotated[
    int, typer.Option(min=1, metavar="N", help="Processes; those that serve share one port.")
]


def run(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="The configuration file, or its folder. Without it, gateway.toml in this folder; "
            "and where there is none, an example.",
            show_default=False,
        ),
    ] = None,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    workers: Workers = 1,
) -> None:
    """Run everything in one: broker, server and worker. For a laptop.

    Without a configuration it runs an example, a shop whose orders show on a live dashboard.
    """
    _start(configured(config), Options(host, port, data_dir, workers), serve=True, work=True)


def serve(
    config: ConfigPath = DEFAULT_CONFIG,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    workers: Workers = 1,
) -> None:
    """Serve browsers: HTTP, WebSocket and SSE. Leaves the handlers to `gateway work`."""
    _start(_load(config), Options(host, port, data_dir, workers), serve=True, work=False)


def work(
    config: ConfigPath = DEFAULT_CONFIG, data_dir: DataDir = None, workers: Workers = 1
) -> None:
    """Run the handlers: take commands from the log, and commit what comes of them."""
    _start(_load(config), Options(None, None, data_dir, workers), serve=False, work=True)


@dataclass(frozen=True)
class Options:
    """What the command line says instead of the configuration."""

    host: str | None
    port: int | None
    data_dir: Path | None
    workers: int

    def applied(self, config: "Config") -> "Config":
        """Return the configuration with these values in it."""
        from msgspec.structs import replace

        server = {"host": self.host, "port": self.port}
        broker = {"data_dir": self.data_dir.absolute() if self.data_dir else None}
        return replace(
            config,
            server=replace(config.server, **{k: v for k, v in server.items() if v is not None}),
            broker=replace(config.broker, **{k: v for k, v in broker.items() if v is not None}),
        )


def configured(path: Path | None) -> "tuple[Config, Policy]":
    """Return what `gateway run` runs: without a path, what is in this folder or the example."""
    if path is None and not DEFAULT_CONFIG.exists():
        return _example()
    return _load(path or DEFAULT_CONFIG)


@asynccontextmanager
async def opened_broker(
    path: Path | None, data_dir: Path | None
) -> "AsyncIterator[tuple[Broker, Policy]]":
    """Give the log of a configuration. An embedded server is shared with a gateway that runs.

    Raises `Failure`, `StartError`.
    """
    from gateway.broker.broker import open_broker

    config, policy = configured(path)
    config = Options(None, None, data_dir, 1).applied(config)
    broker = config.broker
    if broker.url is None and not broker.data_dir.is_dir():
        hint = "--data-dir says where else it is"
        raise Failure(f"there is no log in {broker.data_dir}; {hint}", code=ExitCode.NO_BROKER)
    async with open_broker(broker) as opened:
        yield opened, policy


def _load(path: Path) -> "tuple[Config, Policy]":
    from gateway.policy import load_checked

    return load_checked(path)


def _example() -> "tuple[Config, Policy]":
    """The packaged example, with its data in this folder and not among the program's files."""
    from msgspec.structs import replace

    from gateway.resources import example_config

    config, policy = _load(example_config())
    broker = config.broker
    if broker.data_dir.parent == base_dir(config):
        broker = replace(broker, data_dir=Path(broker.data_dir.name).absolute())
    return replace(config, broker=broker), policy


def _start(checked: "tuple[Config, Policy]", options: Options, *, serve: bool, work: bool) -> None:
    from gateway import server
    from gateway.telemetry import logs

    config, policy = checked
    config = options.applied(config)
    log = config.log
    logs.configure(level=log.level, format=log.format, requests=log.requests)
    server.run(
        config,
        policy,
        base_dir=base_dir(config),
        serve=serve,
        work=work,
        processes=options.workers,
        on_ready=partial(_ready, config, policy),
    )


def _ready(config: "Config", policy: "Policy", url: str) -> None:
    """Say where the gateway is; `url` is empty if it does not serve."""
    from rich.console import Console

    from gateway.cli.greeting import greeting, title

    console = Console(highlight=False)
    if url:
        console.print(greeting(config, url, title(config, policy)), soft_wrap=True)
    else:
        text = f"Working on {', '.join(policy.commands.streams)}: {title(config, policy)}."
        console.print(f"{text} Ctrl-C stops it.", soft_wrap=True, markup=False)

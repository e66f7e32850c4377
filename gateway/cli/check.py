"""`gateway check`: every problem of a configuration, or what it says."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.failures import ExitCode
from gateway.cli.options import DEFAULT_CONFIG, ConfigPath

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.errors import Problem
    from gateway.policy import Policy
    from gateway.worker.loading import Handlers

EXAMPLES = """
[bold]Examples[/]

gateway check

gateway check deploy/gateway.toml

gateway check --json | jq .commands
"""


def check(
    config: ConfigPath = DEFAULT_CONFIG,
    json: Annotated[
        bool, typer.Option("--json", help="Print it for programs, problems included.")
    ] = False,
) -> None:
    """Check a configuration and its handlers, and print what is configured.

    Every problem is reported at once, with its file and line. Nothing is started, and no broker is
    needed. GATEWAY_... variables count as they would for `gateway run`.
    """
    from gateway.errors import ConfigError

    try:
        checked = _check(config)
    except ConfigError as error:
        if not json:
            raise
        _print_json({"problems": [_plain(problem) for problem in error.problems]})
        raise typer.Exit(ExitCode.USAGE) from error
    if json:
        _print_json(checked.document())
    else:
        from gateway.cli.report import print_report

        print_report(checked.document())


@dataclass(frozen=True)
class Checked:
    """A configuration without problems, and the handlers that it names."""

    config: "Config"
    policy: "Policy"
    handlers: "Handlers"

    def document(self) -> dict[str, Any]:
        """Return what is configured, as plain data. No password and no token is among them."""
        from gateway.policy import summary

        document = summary(self.config, self.policy)
        handlers = [
            {
                "type": handler.type,
                "name": handler.function.__qualname__,
                "file": handler.file,
                "line": handler.line,
                "attempts": handler.attempts,
                "timeout": handler.timeout,
                "never_retry": [kind.__name__ for kind in handler.never_retry],
                "keep_order": handler.keep_order,
            }
            for handler in self.handlers
        ]
        document["worker"] = {
            "modules": document.pop("handlers"),
            "concurrency": document.pop("concurrency"),
            "handlers": handlers,
        }
        document["warnings"] = self._warnings()
        return document

    def _warnings(self) -> list[str]:
        """Return what is no mistake but may not be what was meant."""
        types = [command.type for command in self.config.commands]
        file = self.config.file.name if self.config.file else ""
        missing = self.handlers.missing(types) if self.config.worker.handlers else []
        nobody = [
            f"{file}: no handler here handles {type!r}; its commands wait for a worker that does"
            for type in missing
        ]
        return nobody + [str(problem) for problem in self.handlers.idle(types)]


def _check(path: Path) -> Checked:
    """Raises `ConfigError` with the problems of the file and of the handlers together."""
    from gateway.configfile import read
    from gateway.errors import ConfigError
    from gateway.policy.compiler import compile_policy
    from gateway.worker.loading import Handlers, load

    config, report = read(path)
    policy = compile_policy(config, report)
    handlers = Handlers([])
    if not any(problem.message.startswith("worker.handlers") for problem in report.problems):
        try:
            handlers = load(config.worker.handlers, base_dir(config))
        except ConfigError as error:
            report.problems += error.problems
    report.settle()
    return Checked(config, policy, handlers)


def base_dir(config: "Config") -> Path:
    """Where the modules of a configuration are looked for first: beside its file."""
    return config.file.parent if config.file else Path.cwd()


def _plain(problem: "Problem") -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "message": problem.message}


def _print_json(document: dict[str, Any]) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")

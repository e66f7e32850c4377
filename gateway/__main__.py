"""The command `gateway`."""

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from gateway import __version__
from gateway.cli import block, check, deadletters, publish, run, subscribe, token
from gateway.cli.failures import ExitCode, Failure
from gateway.errors import BrokerUnavailable, ConfigError, GatewayError, StartError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="[bold]Exit codes[/]: 0 fine, 1 failed, 2 wrong usage or configuration, "
    "3 the broker or the port cannot be had.",
)

RUN = "Run a gateway"
TALK = "Talk to a gateway"


def _paragraphs(function: Callable[..., None]) -> str:
    """The docstring with each paragraph in one line, for Typer to wrap to the terminal."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or "")


def _add(
    function: Callable[..., None],
    *,
    panel: str | None = None,
    epilog: str,
    to: typer.Typer = app,
    name: str | None = None,
) -> None:
    to.command(name, help=_paragraphs(function), epilog=epilog, rich_help_panel=panel)(function)


_add(run.run, panel=RUN, epilog=run.RUN_EXAMPLES)
_add(run.serve, panel=RUN, epilog=run.SERVE_EXAMPLES)
_add(run.work, panel=RUN, epilog=run.WORK_EXAMPLES)
_add(check.check, panel=RUN, epilog=check.EXAMPLES)
_add(publish.publish, panel=TALK, epilog=publish.EXAMPLES)
_add(subscribe.subscribe, panel=TALK, epilog=subscribe.EXAMPLES)

shut_out = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
_add(block.add, to=shut_out, epilog=block.ADD_EXAMPLES)
_add(block.list_, to=shut_out, name="list", epilog=block.LIST_EXAMPLES)
_add(block.remove, to=shut_out, epilog=block.REMOVE_EXAMPLES)
app.add_typer(
    shut_out,
    name="block",
    help="Shut somebody out for a while, or one credential; let them in again.",
    epilog=block.ADD_EXAMPLES,
    rich_help_panel=TALK,
)

letters = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
_add(deadletters.list_, to=letters, name="list", epilog=deadletters.LIST_EXAMPLES)
_add(deadletters.show, to=letters, epilog=deadletters.SHOW_EXAMPLES)
_add(deadletters.redrive, to=letters, epilog=deadletters.REDRIVE_EXAMPLES)
_add(deadletters.discard, to=letters, epilog=deadletters.DISCARD_EXAMPLES)
app.add_typer(
    letters,
    name="dead-letters",
    help="Look at commands given up on, send them again, or drop them.",
    epilog=deadletters.LIST_EXAMPLES,
    rich_help_panel=TALK,
)

keys = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
_add(token.create, to=keys, epilog=token.CREATE_EXAMPLES)
_add(token.list_, to=keys, name="list", epilog=token.LIST_EXAMPLES)
_add(token.revoke, to=keys, epilog=token.REVOKE_EXAMPLES)
app.add_typer(
    keys,
    name="token",
    help="Make API keys, list and revoke them.",
    epilog=token.CREATE_EXAMPLES,
    rich_help_panel=RUN,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gateway {__version__}")
        raise typer.Exit


def gateway(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A push gateway between message brokers and browsers.

    Commands come in over HTTP, a durable log keeps them, Python handlers run them, and their
    events go out over WebSocket and SSE: in order, without gaps.
    """


app.callback(help=_paragraphs(gateway))(gateway)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Errors go to stderr, without a traceback."""
    try:
        return app(args=arguments, prog_name="gateway", standalone_mode=False) or ExitCode.FINE
    except Failure as failure:
        _complain(str(failure))
        return failure.code
    except TyperException as error:
        _complain(error.format_message())
        return error.exit_code
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        return ExitCode.USAGE
    except GatewayError as error:
        _complain(error.detail)
        no_broker = isinstance(error, StartError | BrokerUnavailable)
        return ExitCode.NO_BROKER if no_broker else ExitCode.FAILED


def _complain(text: str) -> None:
    for line in text.splitlines():
        typer.echo(f"gateway: {line}", err=True)


if __name__ == "__main__":
    sys.exit(main())

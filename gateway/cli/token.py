"""`gateway token`: make API keys, list and revoke them."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.failures import ExitCode, Failure
from gateway.cli.options import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from gateway.policy.apikeys import Entry, KeyRing

CREATE_EXAMPLES = """
[bold]Examples[/]

gateway token create billing --role producer --expires 90d

gateway token create ci --claim team=web --file /etc/gateway/api-keys.toml

gateway token create billing --print
"""

LIST_EXAMPLES = """
[bold]Examples[/]

gateway token list

gateway token list --json | jq -r 'select(.id == "billing").prefix'
"""

REVOKE_EXAMPLES = """
[bold]Examples[/]

gateway token revoke 3f9a1c0b7d2e

gateway token revoke billing
"""

File = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="The file of API keys, instead of the one that \\[auth] api_keys names.",
        show_default=False,
    ),
]


def create(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="Whose key it is: principal.id in rules.")
    ],
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="A role; may come several times.", show_default=False),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            "--claim",
            metavar="NAME=TEXT",
            help="A claim, for rules and handlers; may come several times.",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="DURATION",
            help="How long it holds, such as 90d; without it, until it is revoked.",
            show_default=False,
        ),
    ] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the entry, and leave the file alone.")
    ] = False,
    file: File = None,
    config: ConfigOption = None,
) -> None:
    """Make an API key and print it: this once, because only its hash is kept.

    Its entry is added to the file of API keys, which running gateways read again within a second.
    """
    from gateway.policy.apikeys import including, make, text_of

    if not 0 < len(identity) <= 255 or not identity.isprintable():
        raise Failure("expected 1 to 255 printable characters as ID", code=ExitCode.USAGE)
    path = None if print_ else _file(file, config)
    key, entry = make(identity, roles=role or (), claims=_claims(claim), expires=_moment(expires))
    if path is None:
        typer.echo(f"{key}\n\n{text_of(entry)}", nl=False)
        return
    _change(path, lambda text: including(text, entry))
    typer.echo(key)
    typer.echo(f"gateway: the key {entry.prefix} of {identity} is in {path}", err=True)


def list_(
    json: Annotated[bool, typer.Option("--json", help="Print it for programs.")] = False,
    file: File = None,
    config: ConfigOption = None,
) -> None:
    """List the API keys: their prefixes, whose they are, and until when.

    With --json each is a line of JSON.
    """
    entries = _ring(_read(_file(file, config))).entries
    if json:
        for entry in entries:
            _print_json(entry)
    else:
        _print_table(entries)


def revoke(
    names: Annotated[
        list[str],
        typer.Argument(metavar="PREFIX", help="Which keys: by prefix, or all of an ID."),
    ],
    file: File = None,
    config: ConfigOption = None,
) -> None:
    """Take API keys back, for good. Prints their prefixes.

    Running gateways refuse them within a second.
    """
    from gateway.policy.apikeys import without

    path = _file(file, config)
    entries = _ring(_read(path)).entries
    found: set[str] = set()
    for name in names:
        plain = name.split("_")[1] if name.startswith("gwk_") and name.count("_") == 2 else name
        meant = {each.prefix for each in entries if plain in (each.prefix, each.id)}
        if not meant:
            shown = plain if plain == name else f"gwk_{plain}_…"
            raise Failure(f"there is no key {shown!r} in {path}; nothing was revoked")
        found |= meant
    _change(path, lambda text: without(text, found))
    for prefix in sorted(found):
        typer.echo(prefix)


def _file(file: Path | None, config: Path | None) -> Path:
    """Return where the keys are. The configuration need not be right in everything else."""
    from gateway.configfile import read

    if file is not None:
        return file
    configured = read(config or DEFAULT_CONFIG)[0].auth.api_keys
    if configured is None:
        raise Failure(
            "[auth] api_keys names no file: set it, or say --file or --print",
            code=ExitCode.USAGE,
        )
    return configured


def _claims(given: list[str] | None) -> dict[str, str]:
    pairs = [each.partition("=") for each in given or ()]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise Failure("expected NAME=TEXT as --claim", code=ExitCode.USAGE)
    return {name: text for name, _, text in pairs}


def _moment(duration: str | None) -> datetime | None:
    from gateway.settings import Seconds

    if duration is None:
        return None
    try:
        seconds = Seconds.parse(duration)
    except ValueError as error:
        raise Failure(f"{error} as --expires but got {duration!r}", code=ExitCode.USAGE) from None
    return (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)


def _read(path: Path) -> str:
    from gateway.policy.authentication import read_file

    try:
        return read_file(path, bytes.decode)
    except ValueError as error:
        raise Failure(str(error)) from None


def _ring(text: str) -> "KeyRing":
    from gateway.policy.apikeys import KeyRing

    try:
        return KeyRing.parse(text.encode())
    except ValueError as error:
        raise Failure(str(error)) from None


def _change(path: Path, change: Callable[[str], str]) -> None:
    """Replace a file by what `change` makes of its text, in one step and one at a time."""
    from gateway.cli.files import replaced

    try:
        replaced(path, change)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(f"{path}: {reason}") from error


def _print_json(entry: "Entry") -> None:
    import msgspec

    shown = {name: getattr(entry, name) for name in ("id", "prefix", "roles", "claims")}
    shown |= {"created": entry.created, "expires": entry.expires}
    sys.stdout.write(msgspec.json.encode(shown).decode() + "\n")


def _print_table(entries: "tuple[Entry, ...]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Prefix", "ID", "Roles", "Made", "Expires"):
        table.add_column(title, overflow="fold")
    now = datetime.now(UTC)
    for entry in entries:
        made = f"{entry.created:%Y-%m-%d}" if entry.created else ""
        expires = f"{entry.expires:%Y-%m-%d %H:%M}" if entry.expires else "never"
        if entry.expires and entry.expires <= now:
            expires = "expired"
        cells = (entry.prefix, entry.id, ", ".join(entry.roles), made, expires)
        table.add_row(*map(Text, cells))
    Console(highlight=False).print(table)

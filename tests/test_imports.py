"""The import rule: the package is a stack of rows, and imports point downwards only.

Every import counts: at the top of a module, inside a function, and for type checking alone.
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gateway"

ROWS = [
    {"__main__", "cli"},
    {"__init__", "app", "server", "processes"},
    {"api", "transports", "bridges", "client"},
    {"redrive", "dispatch", "admission", "auth", "guard", "limits", "worker", "hub"},
    {"broker", "policy", "certificates"},
    {"config", "authconfig", "configfile", "secretfiles", "report", "settings", "tomllines"},
    {"commands", "events", "channels", "idempotency", "principals", "blocks"},
    {"addresses", "buckets"},
    {"errors", "telemetry", "resources"},
]
"""A unit is a module or a folder of `gateway/`. It may import what is in its own row and below."""

ENVIRONMENT_READERS = {"config", "configfile"}

ROW_OF = {unit: number for number, row in enumerate(ROWS) for unit in row}

FORBIDDEN = {
    "api": {"transports", "bridges"},
    "transports": {"api", "bridges", "broker"},
    "bridges": {"api", "transports", "broker"},
}
"""What would point downwards, or sideways, and is not wanted all the same."""

FOREIGN = {
    "redis": {"broker"},
    "starlette": {"__main__", "app", "server", "api", "transports"},
    "jwt": {"auth", "policy"},
    "cryptography": {"auth", "policy"},
}
"""Packages that stay in few hands, so that they can be replaced."""


class Module:
    """One file of the package, and what it says about others."""

    def __init__(self, path: Path) -> None:
        self.name = str(path.relative_to(PACKAGE))
        self.unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        self.tree = ast.parse(path.read_bytes())
        self.imports = set(self._imports())
        self.units = {unit for unit in map(_unit, self.imports) if unit not in ("", self.unit)}

    def _imports(self) -> Iterator[str]:
        """Dotted names; `from a import b` is `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}:{node.lineno}: imports are absolute"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _unit(imported: str) -> str:
    """The unit of `gateway` that a dotted name lies in, or `""` for another package."""
    package, _, rest = imported.partition(".")
    unit = rest.partition(".")[0]
    if package != "gateway":
        return ""
    return unit if unit in ROW_OF else "__init__"


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]


def test_every_unit_has_a_row(modules: list[Module]) -> None:
    assert {module.unit for module in modules} <= ROW_OF.keys()


def test_imports_point_downwards(modules: list[Module]) -> None:
    upwards = [
        (module.name, unit)
        for module in modules
        for unit in module.units
        if ROW_OF[unit] < ROW_OF[module.unit]
    ]
    assert upwards == []


def test_edges_are_kept_apart_and_away_from_the_broker(modules: list[Module]) -> None:
    unwanted = [
        (module.name, unit)
        for module in modules
        for unit in module.units & FORBIDDEN.get(module.unit, set())
    ]
    assert unwanted == []


def test_no_circle_of_imports_inside_a_row(modules: list[Module]) -> None:
    imports: dict[str, set[str]] = {}
    for module in modules:
        imports.setdefault(module.unit, set()).update(module.units)
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_foreign_packages_stay_where_they_belong(modules: list[Module]) -> None:
    misplaced = [
        (module.name, package)
        for module in modules
        for package, homes in FOREIGN.items()
        if package in {name.partition(".")[0] for name in module.imports}
        and module.unit not in homes
    ]
    assert misplaced == []


def test_only_the_configuration_reads_the_environment(modules: list[Module]) -> None:
    readers = {"environ", "environb", "getenv", "getenvb"}
    reading = []
    for module in modules:
        names = {name.rpartition(".")[2] for name in module.imports}
        names |= {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
        if names & readers and module.unit not in ENVIRONMENT_READERS:
            reading.append(module.name)
    assert reading == []

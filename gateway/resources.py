"""Where the files lie that are not code: the web pages and the example that runs by default.

In a wheel they are inside the package. In a source tree, and so in an editable install of it, they
are `web/` and `examples/` beside the package.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def web_dir() -> Path:
    """The directory of the console and of the client library for browsers."""
    return _find("web")


def example_config() -> Path:
    """The configuration that `gateway run` runs when it is given none."""
    return _find("examples") / "orders" / "gateway.toml"


def _find(name: str) -> Path:
    packaged = _PACKAGE / f"_{name}"
    return packaged if packaged.is_dir() else _PACKAGE.parent / name

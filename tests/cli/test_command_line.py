"""The command line as a whole: version, help, exit codes, and that it starts at once."""

import json
import subprocess
import sys

import pytest

from gateway import __version__
from gateway.__main__ import main
from tests.cli.terminal import run

HEAVY = (
    "starlette",
    "uvicorn",
    "redis",
    "httpx",
    "websockets",
    "common_expression_language",
    "cel",
)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gateway {__version__}\n"


def test_help_has_the_exit_codes_and_each_command_has_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "3 the broker or the port cannot be had" in " ".join(text.split())
    for command in ("run", "serve", "work", "check", "publish", "subscribe", "dead-letters"):
        assert command in text
        assert main([command, "--help"]) == 0
        own = capsys.readouterr().out
        assert "Examples" in own
        assert f"gateway {command} " in own


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["publish", "--nonsense"]])
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("gateway: ")
    assert err.count("\n") == 1


def test_without_arguments_it_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: gateway" in capsys.readouterr().out


def test_the_version_is_there_without_loading_the_gateway() -> None:
    program = (
        "import sys, json; from gateway.__main__ import main; code = main(['--version']);"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=50)
    code, modules = json.loads(result.stdout.splitlines()[-1])
    assert code == 0
    assert not set(HEAVY) & set(modules)


async def test_the_module_is_the_command() -> None:
    assert (await run("--version")).out == f"gateway {__version__}\n"
    assert (await run("nonsense")).code == 2

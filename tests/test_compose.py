"""`docker-compose.yml` and its image, as far as they can be judged without an engine."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import ServerConfig, WorkerConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    found: dict[str, Any] = compose["services"]
    return found


def test_compose_keeps_the_log_on_disk_and_whole(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert services["redis"]["volumes"] == ["redis:/data"]


@pytest.mark.parametrize("name", ["serve", "work"])
def test_compose_starts_the_gateway_when_the_log_is_ready(
    services: dict[str, Any], name: str
) -> None:
    service = services[name]
    assert service["command"][:2] == [name, "/app/gateway.toml"]
    assert service["volumes"] == ["./examples/orders:/app:ro"]
    assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert service["environment"] == {"GATEWAY_BROKER_URL": "redis://redis:6379/0"}
    assert services["redis"]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", ["serve", "work"])
def test_compose_waits_longer_than_the_gateway_itself(services: dict[str, Any], name: str) -> None:
    grace = float(services[name]["stop_grace_period"].removesuffix("s"))
    assert grace > max(ServerConfig().shutdown, WorkerConfig().shutdown)


def test_the_image_is_built_from_what_is_there(services: dict[str, Any]) -> None:
    dockerfile = ROOT / services["serve"]["build"]["dockerfile"]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.MULTILINE)
    sources = {name for line in copied for name in line.split()}
    allowed = re.findall(
        r"^!(.+)$", dockerfile.with_name("Dockerfile.dockerignore").read_text(), re.MULTILINE
    )
    assert sources == set(allowed)
    assert all((ROOT / name).exists() for name in sources)


def test_docker_accepts_the_compose_file() -> None:
    docker = shutil.which("docker")
    client = [docker, "compose"] if docker else []
    if not docker or subprocess.run([*client, "version"], capture_output=True).returncode:
        return  # The tests above have read the file; this one is the client's own opinion.
    subprocess.run([*client, "config", "--quiet"], cwd=ROOT, check=True, capture_output=True)

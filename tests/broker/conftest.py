"""Fixtures of those who test how the log is reached."""

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def certificate(short_dir: Path) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1 that nobody vouches for."""
    if not shutil.which("openssl"):
        pytest.skip("needs the command openssl: apt-get install openssl")
    key, certificate = short_dir / "key.pem", short_dir / "certificate.pem"
    command = (
        "openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
        f"-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, certificate

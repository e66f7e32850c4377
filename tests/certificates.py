"""Certificates for tests, made by openssl: an authority, and what it vouches for."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Vouches for whom it likes."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if not shutil.which("openssl"):
            pytest.skip("needs the command openssl: apt-get install openssl")
        self._folder = folder
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl(
            f"req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
            f"-subj /CN={name} -keyout {self._key} -out {self.certificate}"
        )

    def issue(self, name: str) -> Issued:
        """Vouch for `name` on loopback."""
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl(
            f"req -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN={name} "
            f"-keyout {key} -out {request}"
        )
        openssl(
            f"x509 -req -days 2 -in {request} -CA {self.certificate} -CAkey {self._key} "
            f"-CAcreateserial -extfile {extensions} -out {certificate}"
        )
        return Issued(certificate, key)


def openssl(arguments: str) -> None:
    """Run openssl."""
    subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True, timeout=30)

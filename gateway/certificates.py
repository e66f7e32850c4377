"""Certificates: TLS from files that may be replaced at any time.

A new certificate counts for every handshake from then on; connections that are there stay. Files
that cannot be used, or of which only one has been replaced yet, change nothing.
"""

import asyncio
import logging
import ssl
from pathlib import Path

from gateway.config import TLSConfig
from gateway.report import Report

logger = logging.getLogger(__name__)

WATCH = 5.0
"""Seconds between two looks at the files. What replaces them gives days of time."""

_Stamp = tuple[tuple[int, int, int], ...]


def load(config: TLSConfig) -> ssl.SSLContext:
    """Return what the files say. Raises `ValueError` with the file and what is wrong with it."""
    assert config.certificate is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    key = config.key or config.certificate
    for file in (config.certificate, key, config.client_ca):
        _check_readable(file)
    try:
        # Without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(config.certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(
            f"expected a certificate, and in {key} its private key without a password, both PEM, "
            f"but {config.certificate} cannot be used with it: {_reason(error)}"
        ) from None
    if config.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that is resumed shows no certificate, and each one can be resumed anew: whoever
        # was let in once would be let in for ever. TLS 1.2 keeps sessions that Python cannot drop.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        try:
            context.load_verify_locations(config.client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(
                f"expected PEM certificates in {config.client_ca}: {_reason(error)}"
            ) from None
    return context


def _check_readable(file: Path | None) -> None:
    try:
        if file is not None:
            file.open("rb").close()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).lower().replace("_", " ")


def check_tls(config: TLSConfig, report: Report) -> None:
    """Report files that cannot be used, and settings that mean nothing without a certificate."""
    if config.certificate is not None:
        found = len(report.problems)
        for name in ("certificate", "key", "client_ca"):
            with report.guard("tls", name):
                _check_readable(getattr(config, name))
        if len(report.problems) == found:
            with report.guard("tls", "certificate"):
                load(config)
        return
    for name in ("key", "client_ca"):
        if getattr(config, name) is not None:
            report.add(("tls", name), "expected a certificate beside it")


class Certificates:
    """The files as they are, for the handshakes of one process."""

    def __init__(self, config: TLSConfig) -> None:
        """Read the files. Raises `ValueError`."""
        self._config = config
        self._files = [
            file for file in (config.certificate, config.key, config.client_ca) if file is not None
        ]
        self._stamp = self._look()
        self._current = load(config)
        self.context = load(config)
        """For the listener. Each handshake goes on with the newest of the files."""
        self.context.sni_callback = self._take_newest

    def _take_newest(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._current

    async def watch(self) -> None:
        """Read the files again whenever they have changed, until cancelled."""
        while True:
            await asyncio.sleep(WATCH)
            self.refresh()

    def refresh(self) -> None:
        """Read the files again if they have changed."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._current = load(self._config)
        except ValueError as error:
            logger.warning("the certificate stays the one that it was: %s", error)
        else:
            logger.info("took the new certificate in %s", self._config.certificate)

    def _look(self) -> _Stamp:
        return tuple(_stamp(file) for file in self._files)


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        stat = file.stat()
    except OSError:
        return (0, 0, 0)
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)

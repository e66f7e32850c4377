"""A real identity provider for the tests: nanoidp, as a process of its own."""

import asyncio
import re
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.servers import eventually, free_port

PATIENCE = 30.0
CLIENT = ("demo-client", "demo-secret")
USER = {"username": "admin", "password": "admin"}
PREVIOUS_KEYS = 2
"""Keys that it goes on publishing beside its newest one."""


class IdentityProvider:
    """A provider with one client and one user."""

    audience = "my-app"

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.issuer = self.url
        self.http = httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False)
        self._folder = folder
        self._process: Process | None = None

    def configure(self) -> None:
        """Have it write its usual configuration, and give it its own name."""
        subprocess.run(
            [sys.executable, "-m", "nanoidp", "init", str(self._folder)],
            check=True,
            capture_output=True,
            cwd=self._folder,
            timeout=PATIENCE,
        )
        settings = self._folder / "settings.yaml"
        text = settings.read_text()
        named = text.replace('issuer: "http://localhost:8000"', f'issuer: "{self.issuer}"')
        assert named != text
        settings.write_text(named)

    async def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "nanoidp", "--config", str(self._folder)),
                *("--host", "127.0.0.1", "--port", str(self.port)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,  # where it keeps its keys
            )
        await eventually(self._answers, within=PATIENCE, reason="the identity provider answered")

    async def stop(self) -> None:
        """Kill it, so that nobody answers at its address any more."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, (self._folder / "log").read_text()
        try:
            return (await self.http.get("/api/health")).status_code == 200
        except httpx.TransportError:
            return False

    async def client_token(self) -> str:
        """Log the client in as itself: client credentials, RFC 6749 section 4.4."""
        return await self._token({"grant_type": "client_credentials"})

    async def user_token(self) -> str:
        """Log the user in as a browser does, with a form and a code: RFC 6749 section 4.1."""
        back = "http://127.0.0.1:1/back"
        query = {"response_type": "code", "client_id": CLIENT[0], "redirect_uri": back}
        page = await self.http.get("/authorize", params={**query, "scope": "openid"})
        hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text)
        answer = await self.http.post("/authorize", data={**dict(hidden), **USER})
        (code,) = parse_qs(urlsplit(answer.headers["location"]).query)["code"]
        return await self._token(
            {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
        )

    async def revoke(self, token: str) -> None:
        """Take a token back: RFC 7009."""
        answer = await self.http.post("/revoke", data={"token": token}, auth=CLIENT)
        assert answer.status_code == 200, answer.text

    async def rotate(self) -> None:
        """Have it sign with a new key."""
        answer = await self.http.post("/api/keys/rotate")
        assert answer.status_code == 200, answer.text

    async def _token(self, form: dict[str, str]) -> str:
        answer = await self.http.post("/token", data=form, auth=CLIENT)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


@asynccontextmanager
async def identity_provider(folder: Path) -> AsyncIterator[IdentityProvider]:
    """Run a provider that keeps its configuration and keys in `folder`."""
    provider = IdentityProvider(folder)
    provider.configure()
    try:
        await provider.start()
        yield provider
    finally:
        await provider.stop()
        await provider.http.aclose()

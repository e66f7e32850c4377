"""The identity provider, as far as it is asked over HTTP: bounded in time and size."""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from gateway.policy.authentication import is_loopback

MAX_ANSWER = 256 << 10
"""Bytes of an answer. A set of keys has some thousand, an answer about a token fewer."""
MAX_CONNECTIONS = 16


class ProviderFailed(Exception):
    """There was no answer that could be used. The message says why, and holds no credential."""


class Provider:
    """One URL of a provider. Safe for concurrent use; to be closed."""

    def __init__(self, url: str, *, timeout: float, auth: httpx.Auth | None = None) -> None:
        """`timeout`: seconds until the whole answer must be there."""
        self.url = url
        self._timeout = timeout
        host = urlsplit(url).hostname or ""
        self._client = httpx.AsyncClient(
            auth=auth,
            timeout=timeout,
            follow_redirects=False,  # whoever is configured is asked, and nobody else
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            headers={"accept": "application/json", "accept-encoding": "identity"},
            trust_env=not is_loopback(host),  # a proxy of the environment leads outwards
        )

    async def get(self) -> bytes:
        """Return the document that is there. Raises `ProviderFailed`."""
        return await self._ask("GET", None)

    async def post(self, form: Mapping[str, str]) -> bytes:
        """Return the answer to a form. Raises `ProviderFailed`."""
        return await self._ask("POST", form)

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, form: Mapping[str, str] | None) -> bytes:
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(method, self.url, data=form) as answer,
            ):
                return await _body(answer)
        except TimeoutError:
            raise ProviderFailed(f"no answer within {self._timeout:g} s") from None
        except httpx.HTTPError as error:
            raise ProviderFailed(str(error) or type(error).__name__) from error


async def _body(answer: httpx.Response) -> bytes:
    if answer.status_code != 200:
        raise ProviderFailed(f"expected status 200 but got {answer.status_code}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise ProviderFailed("expected an answer that is not compressed")
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ProviderFailed(f"expected at most {MAX_ANSWER} bytes")
    return bytes(body)

"""Who logs in at a real identity provider may send commands here, for as long as it says so."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.e2e.gateways import PATIENCE, Site, site
from tests.e2e.identityprovider import CLIENT, PREVIOUS_KEYS, IdentityProvider, identity_provider
from tests.servers import eventually, short_directory

COMMANDS = """
[server]
port = 0
[[commands]]
path = "/as-admin"
type = "do"
stream = "s"
allow = "principal.type == 'user' && 'ADMIN' in principal.roles"
[[commands]]
path = "/as-program"
type = "do"
stream = "s"
allow = "principal.type == 'service_account' && principal.id == 'demo-client'"
"""

SIGNED = """
[[auth.jwt]]
issuer = "{issuer}"
audience = ["my-app"]
jwks_url = "{url}/.well-known/jwks.json"
"""

ASKED = """
[auth.introspection]
url = "{url}/introspect"
client_id = "{client}"
client_secret_file = "secret"
issuer = "{issuer}"
audience = ["my-app"]
cache = "{cache}"
"""


@pytest.fixture(scope="module")
async def provider(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[IdentityProvider]:
    """One for all: who stops it starts it again."""
    async with identity_provider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture
async def empty() -> AsyncIterator[Site]:
    with short_directory() as directory:
        async with site(directory) as found:
            yield found


async def serve(found: Site, auth: str, provider: IdentityProvider, cache: str = "1s") -> None:
    """Serve with this kind of authentication."""
    client, secret = CLIENT
    (found.folder / "secret").write_text(secret + "\n")
    text = auth.format(issuer=provider.issuer, url=provider.url, client=client, cache=cache)
    (found.folder / "gateway.toml").write_text(COMMANDS + text)
    await found.start("serve")


async def send(found: Site, token: str | None, path: str = "/as-program") -> httpx.Response:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return await found.http.post(path, json={}, headers=headers)


def code(answer: httpx.Response) -> str:
    """What a refusal is called; an acceptance is called so."""
    return "accepted" if answer.status_code == 202 else str(answer.json()["code"])


def logged(found: Site) -> str:
    return (found.folder / "stderr.log").read_text()


async def test_who_has_logged_in_may_send(empty: Site, provider: IdentityProvider) -> None:
    await serve(empty, SIGNED, provider)
    person, program = await provider.user_token(), await provider.client_token()
    assert code(await send(empty, program)) == "accepted"
    assert code(await send(empty, person, "/as-admin")) == "accepted"
    assert code(await send(empty, person)) == "forbidden"
    assert code(await send(empty, program, "/as-admin")) == "forbidden"
    nobody = await send(empty, None)
    assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert program not in logged(empty)


async def test_a_new_key_counts_at_once_and_an_old_one_no_more(
    empty: Site, provider: IdentityProvider
) -> None:
    await serve(empty, SIGNED, provider)
    old = await provider.client_token()
    assert code(await send(empty, old)) == "accepted"
    for _ in range(PREVIOUS_KEYS + 1):
        await provider.rotate()
        new = await provider.client_token()
        assert code(await send(empty, new)) == "accepted"
    refused = await send(empty, old)  # its key is not published any more
    assert (refused.status_code, refused.json()["fault"]) == (401, "unknown-key")


async def test_known_keys_outlast_an_outage_and_unknown_ones_wait_for_its_end(
    empty: Site, provider: IdentityProvider
) -> None:
    await serve(empty, SIGNED, provider)
    known = await provider.client_token()
    assert code(await send(empty, known)) == "accepted"
    await provider.rotate()
    unknown = await provider.client_token()
    await provider.stop()
    refused = await send(empty, unknown)
    assert (refused.status_code, code(refused)) == (503, "identity-unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert code(await send(empty, known)) == "accepted"
    assert code(await send(empty, unknown)) == "identity-unavailable"
    assert logged(empty).count("no keys from") == 1
    await provider.start()

    async def accepted() -> bool:
        return code(await send(empty, unknown)) == "accepted"

    await eventually(accepted, within=PATIENCE, reason="the new key was known")
    assert "there are keys again" in logged(empty)


async def test_who_comes_while_no_keys_were_ever_had_is_told_to_come_back(
    empty: Site, provider: IdentityProvider
) -> None:
    token = await provider.client_token()
    await provider.stop()
    await serve(empty, SIGNED, provider)
    assert code(await send(empty, token)) == "identity-unavailable"
    await provider.start()

    async def accepted() -> bool:
        return code(await send(empty, token)) == "accepted"

    await eventually(accepted, within=PATIENCE, reason="the keys were there")


async def test_what_the_provider_says_of_a_token_counts(
    empty: Site, provider: IdentityProvider
) -> None:
    await serve(empty, ASKED, provider, cache="0s")
    token = await provider.client_token()
    assert code(await send(empty, token)) == "accepted"
    assert (await send(empty, "made-up")).json()["fault"] == "inactive"
    await provider.revoke(token)
    refused = await send(empty, token)
    assert (refused.status_code, refused.json()["fault"]) == (401, "inactive")
    assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert token not in logged(empty)


async def test_a_revoked_token_is_refused_when_the_last_answer_has_grown_old(
    empty: Site, provider: IdentityProvider
) -> None:
    await serve(empty, ASKED, provider, cache="1s")
    token = await provider.client_token()
    assert code(await send(empty, token)) == "accepted"
    await provider.revoke(token)

    async def refused() -> bool:
        return code(await send(empty, token)) == "invalid-token"

    await eventually(refused, within=PATIENCE, reason="the token was refused")


async def test_nobody_is_let_in_on_trust_while_the_provider_is_down(
    empty: Site, provider: IdentityProvider
) -> None:
    await serve(empty, ASKED, provider, cache="1h")
    known, unknown = await provider.client_token(), await provider.client_token()
    assert code(await send(empty, known)) == "accepted"
    await provider.stop()
    assert code(await send(empty, known)) == "accepted"
    refused = await send(empty, unknown)
    assert (refused.status_code, code(refused)) == (503, "identity-unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert code(await send(empty, "made-up")) == "identity-unavailable"
    assert logged(empty).count("cannot be asked") == 1
    await provider.start()
    assert code(await send(empty, unknown)) == "accepted"
    assert "can be asked about tokens again" in logged(empty)

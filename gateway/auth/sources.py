"""The sources of a configuration: who is asked about a credential, in this order."""

from collections.abc import Callable
from functools import partial

from gateway.auth.apikeys import APIKeys
from gateway.auth.authenticator import Source
from gateway.auth.introspection import Introspection, credentials
from gateway.auth.provider import Provider
from gateway.auth.remotekeys import TIMEOUT, RemoteKeys
from gateway.auth.signedtokens import FileKeys, FixedKeys, Issuer, Keys, SignedTokens
from gateway.auth.watchedfile import WatchedFile
from gateway.authconfig import JWTConfig
from gateway.config import AuthConfig
from gateway.errors import StartError
from gateway.policy import keysets
from gateway.policy.apikeys import KeyRing
from gateway.policy.authentication import algorithms_of, fixed_keys


def sources_of(
    config: AuthConfig, *, lost: Callable[[frozenset[str]], None] = lambda prefixes: None
) -> list[Source]:
    """Return the sources of a configuration that was found right.

    `lost` is told the prefixes of API keys that have gone from their file, or have changed.

    Raises:
        StartError: a file of it has gone wrong since.
    """
    found: list[Source] = []
    try:
        if config.api_keys:
            found.append(APIKeys(WatchedFile(config.api_keys, KeyRing.parse), lost=lost))
        if config.jwt:
            found.append(SignedTokens([Issuer(each, _keys(each)) for each in config.jwt]))
        if config.introspection:
            asked = config.introspection
            provider = Provider(asked.url, timeout=asked.timeout, auth=credentials(asked))
            found.append(Introspection(asked, provider))
    except ValueError as error:
        raise StartError(str(error)) from error
    return found


def _keys(config: JWTConfig) -> Keys:
    algorithms = algorithms_of(config)
    if config.jwks_url is not None:
        return RemoteKeys(
            Provider(config.jwks_url, timeout=TIMEOUT),
            partial(keysets.of_document, algorithms=algorithms),
            refresh=config.refresh,
            max_stale=config.max_stale,
        )
    if config.keys is not None:
        read = partial(keysets.of_file, algorithms=algorithms)
        return FileKeys(WatchedFile(config.keys, read))
    return FixedKeys(fixed_keys(config))

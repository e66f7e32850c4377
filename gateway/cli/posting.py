"""Post CloudEvents to a gateway; try again only where nothing can be published twice by that."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx
import msgspec

from gateway.cli.failures import ExitCode, Failure
from gateway.client.following import Backoff
from gateway.client.http import (
    ProblemDocument,
    cannot_connect,
    credentials,
    endpoint,
    is_untrusted,
    retry_after,
)

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

ANSWER_TIMEOUT = 30.0
"""Seconds to wait for an answer. By then it is not known what became of the request."""

KEEP_ALIVE = 2.0
"""Seconds for which an idle connection is used again. Well below the 5 seconds after which servers
close it: a request that meets a connection as it closes is one whose fate is not known."""


class _Accepted(msgspec.Struct):
    ids: list[str]


class Publisher:
    """A gateway's `POST /events`. A context manager; not for several threads."""

    def __init__(
        self, url: str, *, token: str | None, retry_for: float, tell: Callable[[str], None]
    ) -> None:
        """Raises `ValueError` if `url` is none. `tell` is told why it takes longer."""
        self._address = endpoint(url, "/events")
        self._retry_for = retry_for
        self._tell = tell
        self._client = httpx.Client(
            headers=credentials(token),
            timeout=ANSWER_TIMEOUT,
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def post(self, body: bytes, media_type: str) -> list[str]:
        """Return the ids of the events, once the gateway has them in its log.

        Tries again only if the request was never sent, or if the gateway says that it accepted
        nothing and when to come back (503 with Retry-After).

        Raises:
            Failure: in all other cases, with what is known about the events.
        """
        deadline = time.monotonic() + self._retry_for
        backoff = Backoff(first=0.25, longest=2.0)
        while True:
            answer = self._attempt(body, media_type)
            if isinstance(answer, list):
                return answer
            failure, delay = answer
            delay = backoff.next() if delay is None else delay
            if time.monotonic() + delay > deadline:
                raise failure
            self._tell(f"{failure}; trying again in {delay:.1f} s")
            time.sleep(delay)

    def _attempt(self, body: bytes, media_type: str) -> list[str] | tuple[Failure, float | None]:
        try:
            response = self._client.post(
                self._address, content=body, headers={"Content-Type": media_type}
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = Failure(cannot_connect(self._address, error))
            if is_untrusted(error):
                raise failure from error
            return failure, None
        except httpx.RequestError as error:
            raise Failure(
                f"no answer came ({error or type(error).__name__}): "
                "the events may or may not have been published"
            ) from error
        if response.status_code == 202:
            return _ids(response)
        if response.status_code == 503 and (delay := retry_after(response.headers)) is not None:
            return refusal(response), delay
        raise refusal(response)


def _ids(response: httpx.Response) -> list[str]:
    try:
        return msgspec.json.decode(response.content, type=_Accepted).ids
    except msgspec.DecodeError as error:
        raise Failure(f"the events were accepted, but the answer is unreadable: {error}") from error


def refusal(response: httpx.Response) -> Failure:
    """Say in a line what the gateway answered, from its problem document if there is one."""
    problem = ProblemDocument.read(response.content)
    sentence = str(problem) or f"{response.request.url} answered {response.reason_phrase}"
    code = ExitCode.NO_BROKER if problem.code == "broker-unavailable" else ExitCode.FAILED
    return Failure(f"{sentence} ({problem.code or response.status_code})", code=code)

"""Blocks: who is shut out for a while, whatever credentials they show."""

import hashlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from gateway.errors import CloseCode, Forbidden, GatewayError, Unauthorized
from gateway.principals import Principal


class Subject(StrEnum):
    """What a block names."""

    PRINCIPAL = "principal"
    TOKEN_ID = "token_id"


class Block(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody, or one credential, is let in no more."""

    id: str
    """Follows from whom it is about, so that a second one replaces the first."""
    principal: str = ""
    """A `Principal.name` (`user:https://idp.example:alice`), or an id alone (`alice`), which means
    everybody of that id, whatever they are and whoever vouches for them."""
    token_id: str = ""
    """Of one credential; whoever shows another one is not meant."""
    reason: str = ""
    """For operators; who is blocked is not told."""
    created_at: float
    """Seconds since 1970."""
    until: float | None = None
    """Likewise; None: until it is lifted."""

    @classmethod
    def of(
        cls, subject: Subject, name: str, *, seconds: float | None = None, reason: str = ""
    ) -> "Block":
        """Return a block that begins now and lasts so many seconds; None: until it is lifted."""
        now = time.time()
        return cls(
            id=block_id(subject, name),
            principal=name if subject is Subject.PRINCIPAL else "",
            token_id=name if subject is Subject.TOKEN_ID else "",
            reason=reason,
            created_at=now,
            until=None if seconds is None else now + seconds,
        )

    def told(self) -> dict[str, Any]:
        """Return it for JSON, with moments as people read them."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        document["created_at"] = moment(self.created_at)
        document["until"] = None if self.until is None else moment(self.until)
        return document

    @property
    def close_code(self) -> CloseCode:
        """Return what a connection that is open yet is closed with."""
        return CloseCode.UNAUTHORIZED if self.token_id else CloseCode.FORBIDDEN

    def refusal(self) -> GatewayError:
        """Return what to tell who is blocked. With another credential a person may come again."""
        if self.token_id:
            return Unauthorized("these credentials were revoked")
        return Forbidden("you are blocked")


def moment(seconds: float) -> str:
    """Return a moment, in seconds since 1970, as RFC 3339 writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def block_id(subject: Subject, name: str) -> str:
    """Return the id of the block of somebody or something."""
    return hashlib.sha256(f"{subject}:{name}".encode()).hexdigest()[:16]


class Blocks:
    """What one process knows of all blocks. Asking is a look-up; nothing here waits."""

    def __init__(self) -> None:
        self._blocks: dict[str, Block] = {}
        self._principals: dict[str, Block] = {}
        self._token_ids: dict[str, Block] = {}

    def replace(self, blocks: Iterable[Block]) -> None:
        """Forget what was known; these are all there are."""
        for known in (self._blocks, self._principals, self._token_ids):
            known.clear()
        for block in blocks:
            self.add(block)

    def add(self, block: Block) -> None:
        """Take a block in. One of the same id is replaced."""
        self._blocks[block.id] = block
        if block.token_id:
            self._token_ids[block.token_id] = block
        else:
            self._principals[block.principal] = block

    def remove(self, id: str) -> None:
        """Lift a block. Harmless where there is none."""
        block = self._blocks.pop(id, None)
        if block is not None:
            self._token_ids.pop(block.token_id, None)
            self._principals.pop(block.principal, None)

    def of(self, principal: Principal) -> Block | None:
        """Return the block that keeps somebody out, if one does."""
        if not self._blocks or principal.anonymous:
            return None
        now = time.time()
        for known, name in (
            (self._principals, principal.name),
            (self._principals, principal.id),
            (self._token_ids, principal.token_id),
        ):
            found = known.get(name)
            if found is not None and (found.until is None or found.until > now):
                return found
        return None

    def check(self, principal: Principal) -> None:
        """Return if nothing keeps this principal out. Raises `Forbidden`, `Unauthorized`."""
        block = self.of(principal)
        if block is not None:
            raise block.refusal()

"""Redriving: a dead letter's command is sent again, to where a worker reads it."""

import msgspec

from gateway.broker.deadletters import DeadLetters, Kept, Reason
from gateway.commands import CommandStatus, Envelope, Status, channel_of, life_event
from gateway.errors import CannotRedrive
from gateway.events import now
from gateway.policy.compiler import Policy
from gateway.policy.publishing import Publisher


class Redrive:
    """Sends dead letters again: the same command, with its id and its original bytes.

    It goes to the end of its key's line and has all its attempts anew; their numbers go on from
    where they were. On its own channel it is `command.accepted` again, after all that was told of
    it before.
    """

    def __init__(self, letters: DeadLetters, policy: Policy) -> None:
        self._letters = letters
        self._streams = policy.commands.streams
        self._publisher = Publisher(policy.feeds, policy.channels)

    async def __call__(self, command_id: str, *, to: str | None = None) -> CommandStatus:
        """Send a command again, to the stream `to` or to the one that it was in.

        Returns its status: accepted. Of several who do that at once, one succeeds.

        Raises:
            UnknownDeadLetter: there is no such dead letter, or it was redriven or discarded.
            CannotRedrive: nobody reads that stream, or its bytes are no command; the letter stays.
            StreamFull: too many commands wait already; the letter stays.
            StartError: the stream has another number of partitions than is configured.
            BrokerUnavailable: it is then unknown whether it was sent; it can be asked again.
        """
        kept = await self._letters.get(command_id)
        envelope = _envelope(kept)
        status = CommandStatus(
            id=command_id,
            type=kept.letter.type,
            status=Status.ACCEPTED,
            attempts=kept.letter.attempts,
            accepted_at=kept.letter.accepted_at,
        )
        event = life_event(status, envelope, time=now())
        accepted = self._publisher.publication(channel_of(command_id), event)
        await self._letters.redrive(kept, envelope, self._stream(kept, to), accepted)
        return status

    def _stream(self, kept: Kept, to: str | None) -> str:
        stream = to or kept.letter.stream
        if stream not in self._streams:
            known = ", ".join(self._streams) or "none"
            raise CannotRedrive(
                f"expected a stream that is configured, and so is read, but got {stream!r}; "
                f"the streams are: {known}"
            )
        return stream


def _envelope(kept: Kept) -> Envelope:
    if kept.letter.reason is Reason.ENVELOPE:
        raise CannotRedrive("its bytes are no command, and would be none the next time")
    return msgspec.json.decode(kept.envelope, type=Envelope)

"""From an event to what is appended: its channels, and what each of them retains."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.commands import is_of_command
from gateway.errors import PayloadTooLarge, Unroutable
from gateway.events import Event, Publication, Retention, encode, with_channel
from gateway.policy.routes import Channels, Feeds

MAX_EVENTS = 10_000
"""Events that are appended in one step, each counted once for each of its channels. The broker does
nothing else meanwhile: about a tenth of a second."""
MAX_BYTES = 16 << 20
"""Bytes of them, and of what is committed with them. The broker breaks off a request that is far
larger, and with it the requests of others that share its round trip."""


class Publisher:
    """Decides where events go. Pure: what it returns is appended by somebody else."""

    def __init__(self, feeds: Feeds, channels: Channels) -> None:
        self._feeds = feeds
        self._channels = channels
        self.kept_since: Mapping[str, int] = {}
        """Pattern → the moment (ms) from which on its channels' events are known to be kept."""

    def publications(self, event: Event) -> list[Publication]:
        """Return the event once for each of its channels, in the order of the feeds.

        Raises:
            Unroutable: if a feed has no value for this event, or names a channel that no configured
                pattern covers.
            PayloadTooLarge: if it goes to so many channels that it would be too much for one step.
            TypeError: if its data holds what JSON cannot.
        """
        encoded = encode(event)
        attributes = msgspec.json.decode(encoded)
        if event.channel is not None:
            attributes["channel"] = event.channel
        names = self._feeds.channels_for(attributes)
        if event.type.startswith("command.") and any(map(is_of_command, names)):
            raise Unroutable(f"only the gateway tells of a command's life, with {event.type!r}")
        check_size(len(names), len(names) * len(encoded))
        return [
            self.publication(name, with_channel(encoded, name), attributes=attributes)
            for name in names
        ]

    def publication(
        self, channel: str, encoded: bytes, *, attributes: Mapping[str, Any] | None = None
    ) -> Publication:
        """Return an encoded event for a channel that exists.

        `attributes` are the event's, for a channel that may be conflated. Raises `Unroutable`.
        """
        match = self._channels.match(channel)
        if match is None:
            return Publication(channel, encoded, 0, 0)
        key = self._channels.conflation_key(match, attributes) if attributes else ""
        history = match.config.history
        if history is None:
            return Publication(channel, encoded, 0, 0, key)
        return Publication(channel, encoded, history.size, int(history.ttl * 1000), key)

    def retention(self, channel: str) -> Retention:
        """Return for how long a channel keeps its events."""
        match = self._channels.match(channel)
        if match is None or match.config.history is None:
            return Retention(0)
        since_ms = self.kept_since.get(match.config.pattern, 0)
        return Retention(int(match.config.history.ttl * 1000), since_ms)

    @property
    def retentions(self) -> dict[str, int]:
        """Pattern → for how many milliseconds its channels keep their events; 0: not at all."""
        return {
            config.pattern: int(config.history.ttl * 1000) if config.history else 0
            for config in self._channels.configs
        }


def check_size(count: int, size: int) -> None:
    """Return if so many events of so many bytes can be appended in one step.

    Raises `PayloadTooLarge`.
    """
    if count > MAX_EVENTS or size > MAX_BYTES:
        raise PayloadTooLarge(
            f"expected at most {MAX_EVENTS} events (one for each channel) and {MAX_BYTES >> 20} MiB"
        )

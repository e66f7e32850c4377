"""The names of all keys, and nothing else.

Every key begins with the namespace in braces, `{gateway}:`, which is a Redis Cluster hash tag: all
keys of one namespace live in one slot, so that any script may touch any of them. That is what makes
the commit of a command atomic, and it bounds one namespace to one shard. A cluster edition would
have to cut here: command streams with their leases could move to tags of their own only if the
commit became two steps.
"""


class Keys:
    """The keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._prefix = f"{{{namespace}}}:"
        self.log = self._prefix + "log"
        """Hash: `epoch` of the log and `count`, the number of entries ever appended to it."""
        self.events = self._prefix + "events"
        """Stream: the event log, one entry for each event and channel."""
        self.partitions = self._prefix + "partitions"
        """Hash: command stream → number of its partitions, fixed when it is first used."""
        self.dead_letters = self._prefix + "dead-letters"
        """Stream: commands given up on."""
        self.dead_letter_index = self._prefix + "dead-letters:index"
        """Hash: id of a command → entry id of its dead letter, and the stream that it was in."""
        self.dead_letter_counts = self._prefix + "dead-letters:counts"
        """Hash: command stream → number of its dead letters."""
        self.retention = self._prefix + "retention"
        """Hash: channel pattern → for how long (ms) events are kept, and since when (ms)."""
        self.blocks = self._prefix + "blocks"
        """Hash: id of a block → the block."""
        self.probe = self._prefix + "probe"
        """String with a TTL: written to see whether the log takes writes."""

        self.roll = self._prefix + "roll"
        """Set with a TTL: the serving processes that say what they hold."""
        self.holdings = self._prefix + "holdings:"
        """What the names begin with of the hashes in which they say it: see `held_by`."""

    def history(self, channel: str) -> str:
        """Stream: what one channel retains, under the entry ids of the event log."""
        return f"{self._prefix}history:{channel}"

    def floor(self, channel: str) -> str:
        """String: the id of the newest entry that was ever removed from a channel's history."""
        return f"{self._prefix}floor:{channel}"

    def commands(self, stream: str, partition: int) -> str:
        """Stream: the commands of one partition that are not yet done."""
        return f"{self._prefix}commands:{stream}:{partition}"

    def lease(self, stream: str, partition: int) -> str:
        """String: the token of the worker that reads this partition."""
        return f"{self._prefix}lease:{stream}:{partition}"

    def workers(self, stream: str) -> str:
        """Sorted set: the workers of a stream, by the time (ms) at which they count as dead."""
        return f"{self._prefix}workers:{stream}"

    def status(self, command_id: str) -> str:
        """Hash: the status resource of one command."""
        return f"{self._prefix}status:{command_id}"

    def identity(self, name: str) -> str:
        """String with a TTL: what was asked for under a name, and which command came of it."""
        return f"{self._prefix}identity:{name}"

    def ticket(self, digest: str) -> str:
        """String with a TTL: what a ticket stands for, by the digest of the ticket."""
        return f"{self._prefix}ticket:{digest}"

    def issued(self, digest: str) -> str:
        """String with a TTL: how many bytes a principal's tickets take, by a digest of its name."""
        return f"{self._prefix}issued:{digest}"

    def node(self, node: str) -> str:
        """String with a TTL: this serving process is alive."""
        return f"{self._prefix}node:{node}"

    def held_by(self, node: str) -> str:
        """Hash with a TTL: how many connections and subscriptions of whom a process holds."""
        return self.holdings + node

    def limit(self, bucket: str) -> str:
        """String with a TTL: the moment (µs) at which an allowance is whole again."""
        return f"{self._prefix}limit:{bucket}"

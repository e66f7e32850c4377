-- Appends events that no command caused. Returns the ids of their entries.
-- KEYS: log, events, then history and floor of each event's channel
-- ARGV: log size, then channel, event, history size, history ttl (ms), conflation key of each
return append_all(KEYS[1], KEYS[2], ARGV[1], 3, 2)

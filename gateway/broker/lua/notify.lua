-- Tells every serving process something that is for none of their subscribers.
-- KEYS: log, events
-- ARGV: log size, channel of the notice, notice
return append_entry(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], '')

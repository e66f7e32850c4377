-- Strikes a worker off the roll of a stream.
-- KEYS: roll
-- ARGV: worker
return redis.call('ZREM', KEYS[1], ARGV[1])

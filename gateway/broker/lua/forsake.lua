-- Takes a serving process off the roll, with all that it held.
-- KEYS: roll, what this process holds
-- ARGV: this process
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])

-- Reads what is known of a command: names and values in turn.
-- KEYS: status
return redis.call('HGETALL', KEYS[1])

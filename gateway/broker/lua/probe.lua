-- Writes something that matters to nobody, to see whether the log takes writes.
-- KEYS: probe
return redis.call('SET', KEYS[1], 1, 'PX', 1000)

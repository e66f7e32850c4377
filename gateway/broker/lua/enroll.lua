-- Puts a worker on the roll of a stream and strikes off those that fell silent. By the server's
-- clock, so that no worker's counts. Returns how many are left.
-- KEYS: roll
-- ARGV: worker, time to live (ms)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
return redis.call('ZCARD', KEYS[1])

-- Takes back an attempt that a worker cut short because it stops: the command is to be tried again,
-- and this attempt does not count. Returns 1; 0 if it is not this worker's, or was settled.
-- KEYS: lease, status
-- ARGV: lease token
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('HGET', KEYS[2], 'status') ~= 'started' then
  return 0
end
redis.call('HSET', KEYS[2], 'status', 'retrying')
redis.call('HINCRBY', KEYS[2], 'base', 1)
return 1

-- Counts an attempt at a command, before the handler runs, so that one that kills its worker
-- is counted too. Returns the number of the attempt, or 0 if this worker no longer holds the partition.
-- KEYS: log, events, lease, status, history and floor of the command's channel
-- ARGV: log size, lease token, channel, event up to and from the number of the attempt,
--       history size, history ttl (ms)
if redis.call('GET', KEYS[3]) ~= ARGV[2] then
  return 0
end
local attempt = redis.call('HINCRBY', KEYS[4], 'attempts', 1)
redis.call('HSET', KEYS[4], 'status', 'started')
append(KEYS[1], KEYS[2], ARGV[1], KEYS[5], KEYS[6],
  ARGV[3], ARGV[4] .. attempt .. ARGV[5], ARGV[6], ARGV[7])
return attempt

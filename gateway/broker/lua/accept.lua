-- Appends a command to its partition, opens its status and says so on the command's own channel.
-- KEYS: log, events, partition, status, then history and floor of the command's channel
-- ARGV: log size, envelope, type, accepted_at, then channel, event, history size, history ttl (ms)
local entry = redis.call('XADD', KEYS[3], '*', 'e', ARGV[2])
redis.call('HSET', KEYS[4], 'type', ARGV[3], 'status', 'accepted', 'attempts', 0,
  'accepted_at', ARGV[4])
append_all(KEYS[1], KEYS[2], ARGV[1], 5, 5)
return entry

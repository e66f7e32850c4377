-- Appends a command to its partition, opens its status and says so on the command's own channel.
-- Returns 1. Or, having changed nothing: the id of the command that was accepted before with the
-- same identity, 0 if that one asked for something else, -1 if the partition is full.
-- KEYS: log, events, partition, status, identity, then history and floor of the command's channel
-- ARGV: log size, envelope, id, type, accepted_at, how many commands may wait,
--       fingerprint (empty for a command without identity), time to live of the identity (ms),
--       owner (empty for none), then channel, event, history size, history ttl (ms), conflation key
if ARGV[7] ~= '' then
  local earlier = redis.call('GET', KEYS[5])
  if earlier then
    local fingerprint, id = string.match(earlier, '^(%x+) (.*)$')
    return fingerprint == ARGV[7] and id or 0
  end
end
if redis.call('XLEN', KEYS[3]) >= tonumber(ARGV[6]) then
  return -1
end
if ARGV[7] ~= '' then
  redis.call('SET', KEYS[5], ARGV[7] .. ' ' .. ARGV[3], 'PX', ARGV[8])
end
redis.call('XADD', KEYS[3], '*', 'e', ARGV[2])
redis.call('HSET', KEYS[4], 'type', ARGV[4], 'status', 'accepted', 'attempts', 0,
  'accepted_at', ARGV[5])
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[4], 'owner', ARGV[9])
end
append_all(KEYS[1], KEYS[2], ARGV[1], 6, 10)
return 1

-- What came of an attempt, as one step: the new status, the events and, when the command is done,
-- its acknowledgement and perhaps its dead letter. Returns 1; or 0, having changed nothing, if this
-- worker no longer holds the partition or the command is no longer pending.
-- KEYS: log, events, lease, partition, status, dead letters, then history and floor of each event
-- ARGV: log size, lease token, group, entry id, 1 if the command is done, status, result, error,
--       finished_at, status ttl (ms), dead letter (JSON, or empty),
--       then channel, event, history size, history ttl (ms) of each event
if redis.call('GET', KEYS[3]) ~= ARGV[2] then
  return 0
end
if ARGV[5] == '1' then
  if redis.call('XACK', KEYS[4], ARGV[3], ARGV[4]) == 0 then
    return 0
  end
  redis.call('XDEL', KEYS[4], ARGV[4])
end
redis.call('HSET', KEYS[5], 'status', ARGV[6])
for index, name in ipairs({'result', 'error', 'finished_at'}) do
  if ARGV[6 + index] ~= '' then
    redis.call('HSET', KEYS[5], name, ARGV[6 + index])
  end
end
if ARGV[5] == '1' then
  redis.call('PEXPIRE', KEYS[5], ARGV[10])
end
if ARGV[11] ~= '' then
  redis.call('XADD', KEYS[6], '*', 'd', ARGV[11])
end
append_all(KEYS[1], KEYS[2], ARGV[1], 7, 12)
return 1

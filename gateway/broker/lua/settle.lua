-- What came of an attempt, as one step: the new status, the events and, when the command is done,
-- its acknowledgement and perhaps its dead letter. Returns 1; or, having changed nothing, 0 if this
-- worker does not hold the partition, 2 if this attempt was settled before.
-- KEYS: log, events, lease, partition, status, dead letters, then history and floor of each event
-- ARGV: log size, lease token, group, entry id, number of the attempt, 1 if the command is done,
--       status, result, error, finished_at (each empty for none), status ttl (ms),
--       milliseconds until the next attempt, dead letter (JSON, or empty),
--       then channel, event, history size, history ttl (ms), conflation key of each event
if redis.call('GET', KEYS[3]) ~= ARGV[2] then
  return 0
end
local found = redis.call('HMGET', KEYS[5], 'status', 'attempts')
if found[1] ~= 'started' or found[2] ~= ARGV[5] then
  return 2
end
if ARGV[6] == '1' then
  if redis.call('XACK', KEYS[4], ARGV[3], ARGV[4]) == 0 then
    return 2
  end
  redis.call('XDEL', KEYS[4], ARGV[4])
  redis.call('PEXPIRE', KEYS[5], ARGV[11])
else
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[5], 'retry_at', string.format('%.0f', now + ARGV[12]))
end
local known, unknown = {'status', ARGV[7]}, {}
for index, name in ipairs({'result', 'error', 'finished_at'}) do
  local value = ARGV[7 + index]
  if value ~= '' then
    known[#known + 1], known[#known + 2] = name, value
  else
    unknown[#unknown + 1] = name
  end
end
redis.call('HSET', KEYS[5], unpack(known))
if unknown[1] then
  redis.call('HDEL', KEYS[5], unpack(unknown))
end
if ARGV[13] ~= '' then
  redis.call('XADD', KEYS[6], '*', 'd', ARGV[13])
end
append_all(KEYS[1], KEYS[2], ARGV[1], 7, 14)
return 1

-- What came of an attempt, as one step: the new status, the events and, when the command is done,
-- its acknowledgement and perhaps its dead letter. Returns 0, having changed nothing, if this
-- worker does not hold the partition; otherwise the commands whose dead letters had to go, because
-- there are too many. An attempt that was settled before is not settled again.
-- KEYS: log, events, lease, partition, status, dead letters, their index, their counts,
--       then history and floor of each event
-- ARGV: log size, lease token, group, entry id, number of the attempt, 1 if the command is done,
--       status, result, error, finished_at (each empty for none), status ttl (ms),
--       milliseconds until the next attempt, the failed attempt (JSON; empty if it did not fail),
--       why it is a dead letter (empty if it is none), then of the dead letter: command id, type,
--       stream, document (JSON, without the attempts), envelope, and how many may be kept,
--       then channel, event, history size, history ttl (ms), conflation key of each event
if redis.call('GET', KEYS[3]) ~= ARGV[2] then
  return 0
end
local found = redis.call('HMGET', KEYS[5], 'status', 'attempts', 'failures')
if found[1] ~= 'started' or found[2] ~= ARGV[5] then
  return {}
end
local failures = found[3]
if ARGV[13] ~= '' then
  failures = add_failure(failures, ARGV[13])
end
if ARGV[6] == '1' then
  if redis.call('XACK', KEYS[4], ARGV[3], ARGV[4]) == 0 then
    return {}
  end
  redis.call('XDEL', KEYS[4], ARGV[4])
  if failures then
    redis.call('HDEL', KEYS[5], 'failures', 'lost')
  end
  redis.call('PEXPIRE', KEYS[5], ARGV[11])
else
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[5], 'retry_at', string.format('%.0f', now + ARGV[12]),
    'failures', failures)
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
local dropped = {}
if ARGV[14] ~= '' then
  local id, stream = ARGV[15], ARGV[17]
  local attempts = string.gsub(failures or '', '\n', ',')
  remove_letter(KEYS[6], KEYS[7], KEYS[8], id)
  local entry = redis.call('XADD', KEYS[6], '*', 'i', id, 't', ARGV[16], 's', stream,
    'r', ARGV[14], 'd', string.sub(ARGV[18], 1, -2) .. ',"failures":[' .. attempts .. ']}',
    'e', ARGV[19])
  redis.call('HSET', KEYS[7], id, entry .. ' ' .. stream)
  redis.call('HINCRBY', KEYS[8], stream, 1)
  -- A few at a time, also where the bound was lowered: this is no place to take long.
  local over = math.min(redis.call('XLEN', KEYS[6]) - ARGV[20], 10)
  for _ = 1, over do
    local oldest = redis.call('XRANGE', KEYS[6], '-', '+', 'COUNT', 1)[1]
    dropped[#dropped + 1] = oldest[2][2]
    remove_letter(KEYS[6], KEYS[7], KEYS[8], oldest[2][2])
    redis.call('XDEL', KEYS[6], oldest[1])
  end
end
append_all(KEYS[1], KEYS[2], ARGV[1], 9, 21)
return dropped

-- Counts an attempt at a command, before the handler runs, so that one that kills its worker
-- is counted too. Returns the number of the attempt; 0 if this worker does not hold the partition;
-- nil if the command is settled already; less than 0 if it is too early to retry: the milliseconds
-- that are left. Beyond the limit it returns the next number, but neither counts nor publishes it.
--
-- Who asks again, because the answer was lost, gives the same run and gets the same number.
-- KEYS: log, events, lease, partition, status, history and floor of the command's channel
-- ARGV: log size, lease token, group, entry id, run, limit, channel, history size, history ttl (ms),
--       then the event, cut in three where it tells the number of the attempt
if redis.call('GET', KEYS[3]) ~= ARGV[2] then
  return 0
end
if not redis.call('XPENDING', KEYS[4], ARGV[3], ARGV[4], ARGV[4], 1)[1] then
  return nil
end
local known = redis.call('HMGET', KEYS[5], 'run', 'attempts', 'retry_at')
if known[1] == ARGV[5] then
  return tonumber(known[2])
end
if known[3] then
  local time = redis.call('TIME')
  local left = tonumber(known[3]) - (time[1] * 1000 + math.floor(time[2] / 1000))
  if left > 0 then
    return -left
  end
end
if known[3] then
  redis.call('HDEL', KEYS[5], 'retry_at')
end
local attempt = (known[2] or 0) + 1
if attempt > tonumber(ARGV[6]) then
  redis.call('HSET', KEYS[5], 'status', 'started')
  return attempt
end
redis.call('HSET', KEYS[5], 'status', 'started', 'run', ARGV[5], 'attempts', attempt)
append(KEYS[1], KEYS[2], ARGV[1], KEYS[6], KEYS[7], ARGV[7],
  ARGV[10] .. attempt .. ARGV[11] .. attempt .. ARGV[12], ARGV[8], ARGV[9], '')
return attempt

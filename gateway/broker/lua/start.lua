-- Counts an attempt at a command, before the handler runs, so that one that kills its worker
-- is counted too. Returns its number, the number of attempts that do not count any more, and whether the attempt before it was begun and never settled. Or: 0 if this worker does not hold
-- the partition; nil if the command is settled already; less than 0 if it is too early to retry:
-- the milliseconds that are left. Beyond the limit it returns the next number, but neither counts
-- nor publishes it.
--
-- Who asks again, because the answer was lost, gives the same run and gets the same number.
-- KEYS: log, events, lease, partition, status, history and floor of the command's channel
-- ARGV: log size, lease token, group, entry id, run, limit, time, channel, history size,
--       history ttl (ms), then the event, cut in three where it tells the number of the attempt
if redis.call('GET', KEYS[3]) ~= ARGV[2] then
  return 0
end
if not redis.call('XPENDING', KEYS[4], ARGV[3], ARGV[4], ARGV[4], 1)[1] then
  return nil
end
local run, attempts, retry_at, status, base, lost, failures = unpack(redis.call('HMGET', KEYS[5],
  'run', 'attempts', 'retry_at', 'status', 'base', 'lost', 'failures'))
attempts, base = tonumber(attempts or 0), tonumber(base or 0)
if run == ARGV[5] then
  return {attempts, base, 0}
end
if retry_at then
  local time = redis.call('TIME')
  local left = tonumber(retry_at) - (time[1] * 1000 + math.floor(time[2] / 1000))
  if left > 0 then
    return -left
  end
  redis.call('HDEL', KEYS[5], 'retry_at')
end
if status == 'started' and attempts > 0 and tonumber(lost or 0) ~= attempts then
  lost = attempts
  redis.call('HSET', KEYS[5], 'lost', lost, 'failures', add_failure(failures, cjson.encode({
    attempt = attempts, at = ARGV[7], type = 'WorkerDied',
    message = 'it was begun and never settled: ' .. (run or '')
  })))
end
local was_lost = attempts > 0 and tonumber(lost or 0) == attempts and 1 or 0
local number = attempts + 1
if attempts >= base + tonumber(ARGV[6]) then
  redis.call('HSET', KEYS[5], 'status', 'started')
  return {number, base, was_lost}
end
redis.call('HSET', KEYS[5], 'status', 'started', 'run', ARGV[5], 'attempts', number)
append(KEYS[1], KEYS[2], ARGV[1], KEYS[6], KEYS[7], ARGV[8],
  ARGV[11] .. number .. ARGV[12] .. number .. ARGV[13], ARGV[9], ARGV[10], '')
return {number, base, was_lost}

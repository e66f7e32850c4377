-- Counts an attempt at a command, before the handler runs, so that one that kills its worker
-- is counted too. Returns its number, the number of attempts that do not count any more, and
-- whether the attempt before it was begun and never settled. Or: 0 if this worker does not hold
-- the partition; nil if the command is settled already, or not the next to be taken; less than 0 if
-- it is too early to retry: the milliseconds that are left. Beyond the limit it returns the next
-- number, but neither counts nor publishes it.
--
-- Who asks again, because the answer was lost, gives the same run and gets the same number.
-- KEYS: log, events, lease, partition, status, history and floor of the command's channel
-- ARGV: log size, lease token, group, entry id, consumer that takes the command if nobody did
--       (empty: somebody did), run, limit, time, channel, history size, history ttl (ms), then the
--       event, cut in three where it tells the number of the attempt

-- Takes the command, in the same step as the look at the lease. If another one is next, that one is
-- taken; whoever asked has to reclaim it.
local function take()
  local answer = redis.call('XREADGROUP', 'GROUP', ARGV[3], ARGV[5], 'COUNT', 1,
    'STREAMS', KEYS[4], '>')
  return answer and answer[1][2][1][1] == ARGV[4]
end

if redis.call('GET', KEYS[3]) ~= ARGV[2] then
  return 0
end
if not redis.call('XPENDING', KEYS[4], ARGV[3], ARGV[4], ARGV[4], 1)[1]
    and (ARGV[5] == '' or not take()) then
  return nil
end
local run, attempts, retry_at, status, base, lost, failures = unpack(redis.call('HMGET', KEYS[5],
  'run', 'attempts', 'retry_at', 'status', 'base', 'lost', 'failures'))
attempts, base = tonumber(attempts or 0), tonumber(base or 0)
if run == ARGV[6] then
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
    attempt = attempts, at = ARGV[8], type = 'WorkerDied',
    message = 'it was begun and never settled: ' .. (run or '')
  })))
end
local was_lost = attempts > 0 and tonumber(lost or 0) == attempts and 1 or 0
local number = attempts + 1
if attempts >= base + tonumber(ARGV[7]) then
  redis.call('HSET', KEYS[5], 'status', 'started')
  return {number, base, was_lost}
end
redis.call('HSET', KEYS[5], 'status', 'started', 'run', ARGV[6], 'attempts', number)
append(KEYS[1], KEYS[2], ARGV[1], KEYS[6], KEYS[7], ARGV[9],
  ARGV[12] .. number .. ARGV[13] .. number .. ARGV[14], ARGV[10], ARGV[11], '')
return {number, base, was_lost}

-- Notes for how long channels keep their events from now on. Returns for each pattern the moment (ms)
-- from which on events are known to be kept for so long: where that was switched on or became
-- longer, what is older may have been let go of under the earlier rule.
-- KEYS: retention, log
-- ARGV: pattern and time to live (ms; 0: not kept) of each
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local is_new = not redis.call('HGET', KEYS[2], 'count')
local moments = {}
for index = 1, #ARGV, 2 do
  local pattern, ttl = ARGV[index], tonumber(ARGV[index + 1])
  local known = redis.call('HGET', KEYS[1], pattern)
  local since = is_new and 0 or now
  if known then
    local earlier, from = string.match(known, '^(%d+) (%d+)$')
    since = tonumber(from)
    if ttl > tonumber(earlier) then
      since = math.max(since, now - earlier)
    end
  end
  redis.call('HSET', KEYS[1], pattern, string.format('%.0f %.0f', ttl, since))
  moments[#moments + 1] = since
end
return moments

-- Appends an entry for nobody if the log was idle for a while, so that positions of subscribers
-- whose channels are quiet do not grow old. Returns its id, or nil.
-- KEYS: log, events
-- ARGV: log size, idle time (ms)
local now = redis.call('TIME')
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if newest then
  local age = now[1] * 1000 + math.floor(now[2] / 1000)
    - tonumber(string.match(newest[1], '^%d+'))
  if age < tonumber(ARGV[2]) then
    return nil
  end
end
return append_entry(KEYS[1], KEYS[2], ARGV[1], '', '', '')

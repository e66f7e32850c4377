-- Appends events of producers, except those that were appended before. All or none: if one of them
-- is another than what was appended under its identity, nothing is. Returns 0, or its number.
-- KEYS: log, events, then of each event: identity, history and floor of each of its channels
-- ARGV: log size, time to live of an identity (ms), then of each event: fingerprint (empty for one
--       without identity), number of its channels, then channel, event, history size, history ttl
--       (ms), conflation key of each

-- Calls `visit` with the number of each event and where it begins in KEYS and ARGV, until that
-- returns something.
local function each_event(visit)
  local number, key, arg = 1, 3, 3
  while ARGV[arg] do
    local found = visit(number, key, arg)
    if found then
      return found
    end
    local channels = tonumber(ARGV[arg + 1])
    number, key, arg = number + 1, key + 1 + 2 * channels, arg + 2 + 5 * channels
  end
end

local other = each_event(function(number, key, arg)
  local earlier = ARGV[arg] ~= '' and redis.call('GET', KEYS[key])
  return earlier and earlier ~= ARGV[arg] and number or nil
end)
if other then
  return other
end
each_event(function(_, key, arg)
  if ARGV[arg] == '' or redis.call('SET', KEYS[key], ARGV[arg], 'NX', 'PX', ARGV[2]) then
    for channel = 0, ARGV[arg + 1] - 1 do
      local k, a = key + 1 + 2 * channel, arg + 2 + 5 * channel
      append(KEYS[1], KEYS[2], ARGV[1], KEYS[k], KEYS[k + 1],
        ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4])
    end
  end
end)
return 0

-- What every script begins with: the one way in which events enter the log.

-- The epoch names one life of the log: a log that was lost and begun anew has another, and
-- positions in the old one can be told apart. The moment of its birth is unique enough.
local function open_log(log)
  local now = redis.call('TIME')
  redis.call('HSETNX', log, 'epoch', string.format('%x', now[1] * 1000000 + now[2]))
end

local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(a, b)
  local a_ms, a_seq = parse(a)
  local b_ms, b_seq = parse(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

-- Whether an entry of the log has this id. Of what was trimmed it cannot be known any more.
local function is_entry(events, id)
  local oldest = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
  return not oldest or before(id, oldest[1]) or redis.call('XRANGE', events, id, id)[1] ~= nil
end

-- Appends one entry and numbers it, so that a reader who misses one can know it.
-- `~` trims by whole nodes, which costs nothing; a reader that lags past the end sees it by `n`.
-- `key` is the conflation key, empty for none.
local function append_entry(log, events, log_size, channel, event, key)
  local n = redis.call('HINCRBY', log, 'count', 1)
  if n == 1 then
    open_log(log)
  end
  if key == '' then
    return redis.call('XADD', events, 'MAXLEN', '~', log_size, '*',
      'c', channel, 'e', event, 'n', n)
  end
  return redis.call('XADD', events, 'MAXLEN', '~', log_size, '*',
    'c', channel, 'e', event, 'n', n, 'k', key)
end

-- Removes what is over the size or older than the time to live, and remembers the newest id that
-- was removed (the floor): below it no position can be recovered. Exact (`=`), because the floor is.
-- Both keys expire by the time in the newest id and not by the clock: where no floor is left, what
-- is gone is older than the time to live by its id, also after the clock was set back.
local function trim(history, floor, size, ttl, now)
  local over = redis.call('XLEN', history) - size
  local oldest = redis.call('XRANGE', history, '-', '+', 'COUNT', math.max(over, 1))
  local removed = nil
  if over > 0 then
    removed = oldest[over][1]
    redis.call('XTRIM', history, 'MAXLEN', '=', size)
  end
  local expired = string.format('%.0f', now - ttl)
  if tonumber(string.match(oldest[1][1], '^%d+')) < now - ttl then
    local last = redis.call('XREVRANGE', history, '(' .. expired .. '-0', '-', 'COUNT', 1)
    if last[1] then
      removed = last[1][1]
      redis.call('XTRIM', history, 'MINID', '=', expired .. '-0')
    end
  end
  local last_moment = string.format('%.0f', now + ttl)
  if removed then
    redis.call('SET', floor, removed, 'PXAT', last_moment)
  else
    redis.call('PEXPIREAT', floor, last_moment)
  end
  redis.call('PEXPIREAT', history, last_moment)
end

-- Appends one event to the log and, under the same id, to its channel's history.
-- size 0: the channel keeps no history.
local function append(log, events, log_size, history, floor, channel, event, size, ttl, key)
  local id = append_entry(log, events, log_size, channel, event, key)
  size = tonumber(size)
  if size > 0 then
    redis.call('XADD', history, id, 'e', event)
    trim(history, floor, size, tonumber(ttl), tonumber(string.match(id, '^%d+')))
  end
  return id
end

-- Appends the events that begin at KEYS[key] (history, floor) and ARGV[arg] (channel, event, size,
-- ttl in ms, conflation key) to the end of both; returns their ids.
local function append_all(log, events, log_size, key, arg)
  local ids = {}
  while ARGV[arg] do
    ids[#ids + 1] = append(log, events, log_size, KEYS[key], KEYS[key + 1],
      ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4])
    key, arg = key + 2, arg + 5
  end
  return ids
end

-- Adds an attempt that failed to those that are known, each a line of JSON, oldest first. There is
-- a bound, because a handler may be given thousands: beyond it the oldest is forgotten.
local function add_failure(failures, failure)
  if not failures then
    return failure
  end
  local _, breaks = string.gsub(failures, '\n', '')
  if breaks >= 99 then
    failures = string.match(failures, '\n(.*)$')
  end
  return failures .. '\n' .. failure
end

-- Removes the dead letter of a command and returns its fields; nil if there is none.
-- The index knows of each command the entry of its letter and the stream that it was in.
local function remove_letter(letters, index, counts, id)
  local known = redis.call('HGET', index, id)
  if not known then
    return nil
  end
  local entry, stream = string.match(known, '^(%S+) (.*)$')
  local found = redis.call('XRANGE', letters, entry, entry)[1]
  redis.call('XDEL', letters, entry)
  redis.call('HDEL', index, id)
  if redis.call('HINCRBY', counts, stream, -1) <= 0 then
    redis.call('HDEL', counts, stream)
  end
  if not found then
    return nil
  end
  local fields = {}
  for at = 1, #found[2], 2 do
    fields[found[2][at]] = found[2][at + 1]
  end
  return fields
end

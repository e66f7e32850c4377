-- Reads what a channel retains after a position. Returns the log's epoch, the id of the log's newest
-- entry, the id after which the reading began, whether nothing between the position and there is
-- missing, and the entries.
--
-- A position is recoverable exactly if it is of this epoch, not beyond the log's end, and not below
-- the floor. Where no floor is known nothing was trimmed since the history began, and whatever an
-- earlier history of the channel held had expired by then: it was older than the time to live.
-- KEYS: log, events, history, floor
-- ARGV: epoch, ms and seq of the position (epoch '': from the earliest on), history ttl (ms), count
local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(a, b)
  local a_ms, a_seq = parse(a)
  local b_ms, b_seq = parse(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local last = newest and newest[1] or '0-0'
local epoch = redis.call('HGET', KEYS[1], 'epoch') or ''

local floor = redis.call('GET', KEYS[4])
if not floor then
  local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
  local birth
  if first then
    birth = parse(first[1])
  else
    local now = redis.call('TIME')
    birth = now[1] * 1000 + math.floor(now[2] / 1000)
  end
  floor = string.format('%.0f-0', math.max(birth - tonumber(ARGV[4]) + 1, 0))
end

local after = ARGV[2] .. '-' .. ARGV[3]
local recovered = 1
if ARGV[1] == '' then
  after = '0-0'
elseif ARGV[1] ~= epoch or before(last, after) then
  after, recovered = '0-0', 0
elseif after ~= last and before(after, floor) then
  recovered = 0
end
local entries = redis.call('XRANGE', KEYS[3], '(' .. after, '+', 'COUNT', ARGV[5])
return {epoch, last, after, recovered, entries}

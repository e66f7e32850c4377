-- Reads what a channel retains after a position. Returns the log's epoch, the id of the log's newest
-- entry, the id after which the reading began, whether nothing between the position and there is
-- missing, whether more may follow than was read, and the entries.
--
-- A position is recoverable exactly if it is of this epoch, the id of an entry of this log, and not
-- below the floor. A log that lost its end (power failed between two flushes, an older copy was put
-- back, a replica was promoted too early) goes on in the same epoch, but the ids of what it lost are
-- ids of nothing, as long as it retains what is older. Where no floor is known nothing was trimmed
-- since the history began, and whatever an earlier history of the channel held had expired by then:
-- it was older than the time to live.
-- Who cannot be given what was asked for begins where all that is retained follows; that place is
-- recoverable itself, so who has to ask again before the first event came is not told of a new gap.
-- Who may not read the history can resume from what passed a moment ago, and begins at the end of the
-- log otherwise: positions can be made up, as moments can be guessed.
-- KEYS: log, events, history, floor
-- ARGV: epoch, ms and seq of the position (epoch '': from the earliest on), history ttl (ms; 0 for
--       a channel without history), the moment (ms) since when that is so, count and bytes of events
--       that are enough, how old (ms) a position may be ('': as old as what is retained)
local STEP = 32 -- entries of one XRANGE, so that little is read in vain where events are large
local BETWEEN = '9999999999999999999' -- in place of a sequence number: a place after a millisecond,
-- where no entry ever is, so that none can be missed there

local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local last = newest and newest[1] or '0-0'
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then -- the log was emptied just now: a position without an epoch would be none
  open_log(KEYS[1])
  epoch = redis.call('HGET', KEYS[1], 'epoch')
end

local ttl = tonumber(ARGV[4])
local function younger_than_ttl(ms)
  return string.format('%.0f-%s', math.max(ms - ttl, tonumber(ARGV[5]), 0), BETWEEN)
end

local floor, start = last, last -- of a channel without history
if ttl > 0 then
  local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
  if first then
    floor = redis.call('GET', KEYS[4]) or younger_than_ttl(parse(first[1]))
    start = floor
  else
    local now = redis.call('TIME')
    floor = younger_than_ttl(now[1] * 1000 + math.floor(now[2] / 1000))
  end
end

local after = ARGV[2] .. '-' .. ARGV[3]
local reach = tonumber(ARGV[8])
local function is_recoverable()
  if ARGV[1] ~= epoch or before(last, after) then
    return false
  end
  if reach and parse(last) - tonumber(ARGV[2]) > reach then
    return false
  end
  return after == last
    or not before(after, floor) and (ARGV[3] == BETWEEN or is_entry(KEYS[2], after))
end

local recovered = 1
if ARGV[1] == '' then
  after = start
elseif not is_recoverable() then
  after, recovered = reach and last or start, 0
end

local count, enough = tonumber(ARGV[6]), tonumber(ARGV[7])
local entries, size, cursor = {}, 0, after
local more = ttl > 0
while more and #entries < count and size < enough do
  local wanted = math.min(STEP, count - #entries)
  local found = redis.call('XRANGE', KEYS[3], '(' .. cursor, '+', 'COUNT', wanted)
  for _, entry in ipairs(found) do
    if size < enough then
      entries[#entries + 1] = entry
      size = size + #entry[2][2]
      cursor = entry[1]
    end
  end
  more = #found == wanted
end
return {epoch, last, after, recovered, (more or size >= enough) and 1 or 0, entries}

-- Sends a dead letter's command again, as one step: the letter goes, its original bytes are the
-- newest entry of a partition, and its status is open again. Its attempts stay counted, so that
-- their numbers tell them apart; the limit counts those from here on. Returns 1; or, having changed
-- nothing, 0 if there is no such letter (any more), -1 if the partition is full.
-- KEYS: log, events, dead letters, their index, their counts, partition, status,
--       then history and floor of the command's channel
-- ARGV: log size, command id, entry id of the letter, how many commands may wait, type,
--       accepted_at, attempts so far, those that failed (lines of JSON),
--       then channel, event, history size, history ttl (ms), conflation key
local known = redis.call('HGET', KEYS[4], ARGV[2])
if not known or string.match(known, '^%S+') ~= ARGV[3] then
  return 0
end
if redis.call('XLEN', KEYS[6]) >= tonumber(ARGV[4]) then
  return -1
end
local letter = remove_letter(KEYS[3], KEYS[4], KEYS[5], ARGV[2])
if not letter then
  return 0
end
redis.call('XADD', KEYS[6], '*', 'e', letter['e'])
redis.call('DEL', KEYS[7])
redis.call('HSET', KEYS[7], 'type', ARGV[5], 'status', 'accepted', 'accepted_at', ARGV[6],
  'attempts', ARGV[7], 'base', ARGV[7])
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[7], 'failures', ARGV[8])
end
append_all(KEYS[1], KEYS[2], ARGV[1], 8, 9)
return 1

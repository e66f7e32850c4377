-- Gives a serving process its own consumer group on the event log. Returns the log's epoch, the id
-- of the newest entry before what the group will read, that of the newest entry of all, the number of
-- entries up to that one, and whether the log has what the group is to read after.
-- KEYS: log, events
-- ARGV: group, and the id after which to read: '' for the end of the log
open_log(KEYS[1])
local created = redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[1], '$', 'MKSTREAM')
if created.err and not string.find(created.err, 'BUSYGROUP') then
  return created
end
local info = redis.call('XINFO', 'STREAM', KEYS[2])
local last = '0-0'
for index = 1, #info, 2 do
  if info[index] == 'last-generated-id' then
    last = info[index + 1]
  end
end
local from = ARGV[2] ~= '' and ARGV[2] or last
redis.call('XGROUP', 'SETID', KEYS[2], ARGV[1], from)
local log = redis.call('HMGET', KEYS[1], 'epoch', 'count')
local known = from == last or is_entry(KEYS[2], from)
return {log[1], from, last, log[2] or '0', known and 1 or 0}

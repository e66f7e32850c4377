-- Reads again what earlier holders of a partition took and did not settle. Entries that were deleted
-- meanwhile are forgotten. Returns the entries and the id of the newest that anybody took; 0 if the
-- lease is not this worker's, -1 if the partition or its group is gone.
-- KEYS: lease, partition
-- ARGV: lease token, group, consumer, id after which to read, count
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local answer = redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3],
  'COUNT', ARGV[5], 'STREAMS', KEYS[2], ARGV[4])
if answer and answer.err then
  return string.find(answer.err, 'NOGROUP') and -1 or answer
end
local entries = answer and answer[1][2] or {}
for _, entry in ipairs(entries) do
  if not entry[2] then
    redis.call('XACK', KEYS[2], ARGV[2], entry[1])
  end
end
local newest = '0-0'
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
  local fields = {}
  for index = 1, #group, 2 do
    fields[group[index]] = group[index + 1]
  end
  if fields['name'] == ARGV[2] then
    newest = fields['last-delivered-id']
  end
end
return {entries, newest}

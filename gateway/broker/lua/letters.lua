-- Reads dead letters that are like this, newest first: a part of them, so that it never takes long.
-- Returns their entry ids and documents, and the id of the entry that was looked at last ('' at the
-- end of them all).
-- KEYS: dead letters
-- ARGV: where to begin, how many to return, how many to look at,
--       then type, stream and reason (each empty for any)
local found, last = {}, ''
local entries = redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', ARGV[3])
for _, entry in ipairs(entries) do
  local fields = {}
  for at = 1, #entry[2], 2 do
    fields[entry[2][at]] = entry[2][at + 1]
  end
  if (ARGV[4] == '' or fields['t'] == ARGV[4]) and (ARGV[5] == '' or fields['s'] == ARGV[5])
      and (ARGV[6] == '' or fields['r'] == ARGV[6]) then
    found[#found + 1] = {entry[1], fields['d']}
  end
  last = entry[1]
  if #found == tonumber(ARGV[2]) then
    return {found, last}
  end
end
return {found, #entries == tonumber(ARGV[3]) and last or ''}

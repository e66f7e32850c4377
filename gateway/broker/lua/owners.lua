-- Reads whose commands are. Returns for each: its owner, '' for nobody's, false where there is none.
-- KEYS: their statuses
local owners = {}
for index, key in ipairs(KEYS) do
  local status, owner = unpack(redis.call('HMGET', key, 'status', 'owner'))
  owners[index] = status and (owner or '')
end
return owners

-- Reads whose a command is. Returns nil where there is no such command.
-- KEYS: status
local status, owner = unpack(redis.call('HMGET', KEYS[1], 'status', 'owner'))
if not status then
  return nil
end
return owner or ''

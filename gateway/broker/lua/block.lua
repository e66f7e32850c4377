-- Keeps a block, and tells every serving process of it. Returns 0 if there are as many as may be.
-- KEYS: log, events, blocks
-- ARGV: log size, channel of the notice, notice, most that may be, id of the block, block
if redis.call('HEXISTS', KEYS[3], ARGV[5]) == 0
  and redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[4]) then
  return 0
end
redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
append_entry(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], '')
return 1

-- Lifts a block, and tells every serving process of it. Returns 0 if there is no such block.
-- KEYS: log, events, blocks
-- ARGV: log size, channel of the notice, notice, id of the block
if redis.call('HDEL', KEYS[3], ARGV[4]) == 0 then
  return 0
end
append_entry(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], '')
return 1

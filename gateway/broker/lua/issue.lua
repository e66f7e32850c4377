-- Keeps a ticket until somebody comes with it, for a while. Returns 0; or, where the tickets of its
-- principal take as much as they may already, the time (ms) until there may be more, and keeps none.
-- What was issued counts until the time to live of the first ticket is over, used up or not.
-- KEYS: ticket, what the principal's tickets take
-- ARGV: what it stands for, time to live (ms), bytes that it takes, bytes that they all may take
local taken = redis.call('INCRBY', KEYS[2], ARGV[3])
local left = redis.call('PTTL', KEYS[2])
if left < 0 then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
  left = tonumber(ARGV[2])
end
if taken > tonumber(ARGV[4]) then
  redis.call('DECRBY', KEYS[2], ARGV[3])
  return math.max(left, 1)
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0

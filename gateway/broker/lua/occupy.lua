-- Notes how much a serving process holds of some things, unless there would then be too much on all
-- living processes together. Returns 0; or, having noted nothing, the number of the first that is
-- too much.
-- KEYS: roll, what this process holds
-- ARGV: what the names of such keys begin with, time to live (ms), this process, then for each thing
--       its name, how much this process then holds, and how much all may
local others = {}
for _, node in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if node ~= ARGV[3] then
    others[#others + 1] = ARGV[1] .. node
  end
end
for at = 4, #ARGV, 3 do
  local total = tonumber(ARGV[at + 1])
  for _, held in ipairs(others) do
    total = total + tonumber(redis.call('HGET', held, ARGV[at]) or 0)
  end
  if total > tonumber(ARGV[at + 2]) then
    return (at - 1) / 3
  end
end
for at = 4, #ARGV, 3 do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('SADD', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
return 0

-- Gives a sign of life of a serving process, and strikes the dead off the roll. Returns whether what
-- it holds was known all the time, and how many processes there are. The empty field stands for all
-- that a process holds: where it is missing, some of that is.
-- KEYS: roll, what this process holds
-- ARGV: what the names of such keys begin with, time to live (ms), this process
for _, node in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if node ~= ARGV[3] and redis.call('EXISTS', ARGV[1] .. node) == 0 then
    redis.call('SREM', KEYS[1], node)
  end
end
redis.call('SADD', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
local missing = redis.call('HSET', KEYS[2], '', 1)
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {1 - missing, redis.call('SCARD', KEYS[1])}

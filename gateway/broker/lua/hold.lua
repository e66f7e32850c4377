-- Notes how much a serving process holds of some things: its own truth, which nobody questions.
-- KEYS: what this process holds
-- ARGV: time to live (ms), then for each thing its name and how much of it
for at = 2, #ARGV, 2 do
  if ARGV[at + 1] == '0' then
    redis.call('HDEL', KEYS[1], ARGV[at])
  else
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])

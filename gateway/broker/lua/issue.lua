-- Keeps a ticket until somebody comes with it, for a while.
-- KEYS: ticket
-- ARGV: what it stands for, time to live (ms)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1

-- Prolongs the leases that are still this worker's. Returns 1 or 0 for each.
-- KEYS: leases
-- ARGV: token, time to live (ms)
local held = {}
for index, lease in ipairs(KEYS) do
  held[index] = 0
  if redis.call('GET', lease) == ARGV[1] then
    held[index] = redis.call('PEXPIRE', lease, ARGV[2])
  end
end
return held

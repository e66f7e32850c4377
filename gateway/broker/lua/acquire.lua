-- Takes leases that nobody holds, up to a number of them; also those that are this worker's already
-- without its knowing, because the answer was lost. Returns 1 or 0 for each.
-- KEYS: leases
-- ARGV: token, time to live (ms), how many at most
local taken, left = {}, tonumber(ARGV[3])
for index, lease in ipairs(KEYS) do
  taken[index] = 0
  if left > 0 and (redis.call('SET', lease, ARGV[1], 'NX', 'PX', ARGV[2])
      or redis.call('GET', lease) == ARGV[1] and redis.call('PEXPIRE', lease, ARGV[2])) then
    taken[index] = 1
    left = left - 1
  end
end
return taken

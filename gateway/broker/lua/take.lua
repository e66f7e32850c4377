-- Takes new commands of partitions that this worker holds. In one step with the look at the lease,
-- so that a worker that was paused takes nothing that its successor would then never see.
-- Returns for each partition: its new entries, 0 if the lease is not this worker's, -1 if the
-- partition or its group is gone.
-- KEYS: lease and partition of each
-- ARGV: lease token, group, consumer, then how many to take at most of each
local taken = {}
for index = 1, #KEYS, 2 do
  if redis.call('GET', KEYS[index]) ~= ARGV[1] then
    taken[#taken + 1] = 0
  else
    local answer = redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3],
      'COUNT', ARGV[4 + #taken], 'STREAMS', KEYS[index + 1], '>')
    if not answer then
      taken[#taken + 1] = {}
    elseif not answer.err then
      taken[#taken + 1] = answer[1][2]
    elseif string.find(answer.err, 'NOGROUP') then
      taken[#taken + 1] = -1
    else
      return answer
    end
  end
end
return taken

-- Charges a request to buckets: to all of them, or to none if one refuses. The generic cell rate
-- algorithm, as in buckets.py: a bucket is the moment (µs) at which it is full again.
-- Returns for how long the request has to wait for its turn (µs), and for each bucket how many more
-- it would let through, in how long it is full again (µs), and in how long it would let this request
-- through (µs; 0 if it does).
-- KEYS: buckets
-- ARGV: for each bucket the time between two requests (µs), the burst, by how much a request may come
--       too early and then wait (µs), and the cost in requests
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, full_at, early = {}, {}, {}, {}
local wait, refused = 0, false
for index, bucket in ipairs(KEYS) do
  local at = 4 * index - 3
  interval[index], burst[index] = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local patience, cost = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local full = math.max(tonumber(redis.call('GET', bucket) or 0), now)
  -- Further ahead it can only be if the clock was set back, or the limit was another one.
  full = math.min(full, now + interval[index] * burst[index] + patience)
  local delay = full - now - interval[index] * (burst[index] - cost)
  delay = delay > 1 and delay or 0 -- below lie the mistakes of sums
  early[index] = math.max(0, delay - patience)
  full_at[index] = full
  wait = math.max(wait, delay)
  refused = refused or early[index] > 0
end
local answer = {refused and 0 or math.ceil(wait)}
for index, bucket in ipairs(KEYS) do
  if not refused then
    full_at[index] = full_at[index] + interval[index] * tonumber(ARGV[4 * index])
    redis.call('SET', bucket, string.format('%.3f', full_at[index]),
      'PXAT', string.format('%.0f', math.ceil(full_at[index] / 1000)))
  end
  local full_in = full_at[index] - now
  local left = math.floor(burst[index] - full_in / interval[index] + 1e-6)
  answer[#answer + 1] = math.max(0, left)
  answer[#answer + 1] = math.ceil(full_in)
  answer[#answer + 1] = math.ceil(early[index])
end
return answer

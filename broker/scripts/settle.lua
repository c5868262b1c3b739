-- settle: these waiters have their answer, or want none; never deleted, so that asking again is a hit.
--
-- KEYS  flight, waiters, served
-- ARGV  msgpack map: waiters: [{key, deadline}], events (those that were published, as the record had them),
--       keep_s (for how long the record is kept at least, for those who are left; 0: as it is)
-- Returns  the number of waiters that are left

local a = cmsgpack.unpack(ARGV[1])
local now = clock()

local latest = 0
for _, waiter in ipairs(a.waiters) do
  redis.call('HDEL', WAITERS, waiter.key)
  redis.call('DEL', (request_key(waiter.key)))
  redis.call('ZADD', SERVED, text(math.max(waiter.deadline, now) + GRACE), waiter.key)
  latest = math.max(latest, waiter.deadline, now)
end
if a.events ~= '' then
  local events = redis.call('HGET', FLIGHT, 'events') or ''
  if string.sub(events, 1, #a.events) == a.events then -- a later end may have added its own
    redis.call('HSET', FLIGHT, 'events', string.sub(events, #a.events + 1))
  end
end
if latest > 0 then
  keep_until(latest + GRACE)
end
if a.keep_s > 0 then
  keep_until(now + a.keep_s)
end
return {tostring(redis.call('HLEN', WAITERS))}

-- renew: this worker still runs the call; its leases go on.
--
-- KEYS  flight, waiters, served
-- ARGV  msgpack map: key, waiter, deadline (the job's own waiter), worker, token, lease_s, started, call,
--       leases: [key]
-- Returns one of
--   mine, stream waiter...   also when Redis had forgotten the claim and it was written back
--   unwanted                 the last waiter has called it off; the claim ends here, its leases with `release`
--   answered                 two calls were made, one beside the other, and the other's result is there
--   lost                     somebody else runs it now, or it is finished

local a = cmsgpack.unpack(ARGV[1])
local now = clock()
local f = read_flight('state', 'token', 'hedge')
local is_hedge = f.hedge == a.token

for _, key in ipairs(a.leases) do
  redis.call('ZADD', key, text(now + a.lease_s), a.token) -- the call runs, whoever owns the flight
end

if not f.state then
  redis.call('HSET', FLIGHT, 'state', 'running', 'token', a.token, 'worker', a.worker, 'opened',
    text(a.started), 'started', text(a.started), 'call', a.call, 'payer', a.key, 'leads', 1, 'spends', 1,
    'attempts', 1)
  remember(a.key, a.waiter, a.deadline)
elseif f.hedge and f.state == 'done' then
  return {'answered'}
elseif not is_hedge and (f.state ~= 'running' or f.token ~= a.token) then
  return {'lost'}
end
redis.call('HSET', FLIGHT, is_hedge and 'hedge_until' or 'lease_until', text(now + a.lease_s))
-- A call that outlasts every deadline keeps its record: its result must find it.
keep_until(now + a.lease_s + GRACE)

if redis.call('HLEN', WAITERS) == 0 then
  -- A newcomer leads a flight of its own now, and joins no call that is being cut. The leases stay until
  -- it is cut: the provider counts it until then.
  if not is_hedge then
    redis.call('HSET', FLIGHT, 'state', 'ended')
    redis.call('HDEL', FLIGHT, 'token', 'worker', 'lease_until', 'call')
  end
  return {'unwanted'}
end
return append_waiters_who('stream', {'mine'})

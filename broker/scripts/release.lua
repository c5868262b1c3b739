-- release: the claim is given up after a retryable error; the flight waits for its next attempt.
--
-- KEYS  flight, waiters, served
-- ARGV  msgpack map: token, permit_key, closed: [{key, until_, grow_s}], parked_until (0: the job is not parked),
--       billed (the provider may have charged: the spend stays), sent (false: nothing left this machine, the
--       permits go back), overloaded (fewer calls at once, for a while), failed: [] or [{key, until_, grow_s}], the
--       part that failed
-- Returns  mine, or lost; the attempts so far; and 1 where that part's circuit opened

local a = cmsgpack.unpack(ARGV[1])
local now = clock()
local f = read_flight('state', 'token', 'spends', 'attempts', 'call', 'hedge')

local how = {bill = not a.sent and UNSPENT or nil, overloaded = a.overloaded, failed = a.overloaded or #a.closed > 0}
local broke = end_call(a.permit_key, how, a.closed, a.failed, now)
if f.hedge == a.token then
  redis.call('HDEL', FLIGHT, 'hedge_until') -- nobody need wait for its answer
end

if f.state ~= 'running' or f.token ~= a.token then
  return {'lost', tostring(f.attempts or 0), broke}
end
redis.call('HDEL', FLIGHT, 'token', 'worker', 'lease_until', 'call')
if a.sent then
  redis.call('HDEL', FLIGHT, 'doubts') -- its holder has passed them on before the call
end
redis.call('HSET', FLIGHT, 'state', 'queued', 'published_at', text(now), 'parked_until', text(a.parked_until))
if f.call and not a.billed and f.spends > 0 then -- the claim of a spent flight made no call, and took no spend
  redis.call('HINCRBY', FLIGHT, 'spends', -1)
end
return {'mine', tostring(f.attempts or 0), broke}

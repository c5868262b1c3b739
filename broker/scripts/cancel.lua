-- cancel: the caller of a request wants no answer any more. It is settled, and found to be called off when
-- it is handed out again.
--
-- KEYS  flight, waiters, served: without a fingerprint, which is found by the request
-- ARGV  msgpack map: key
-- Returns one of
--   called_off, fingerprint, waiter, worker   it waited; the worker that calls a provider for nobody else, or ''
--   remembered                                it did not; should it come within CALLED_OFF_S, it is called off

local a = cmsgpack.unpack(ARGV[1])
local now = clock()

local name = request_key(a.key)
local fingerprint = redis.call('GET', name)
if not fingerprint or fingerprint == '' then
  redis.call('SET', name, '', 'EX', CALLED_OFF_S)
  return {'remembered'}
end

redis.call('SET', name, '', 'KEEPTTL')
FLIGHT, WAITERS, SERVED = FLIGHT .. fingerprint, WAITERS .. fingerprint, SERVED .. fingerprint
local waiter = redis.call('HGET', WAITERS, a.key)
if not waiter then
  return {'remembered'} -- parked by a limit, and nobody's waiter meanwhile
end

local until_ = math.max(cmsgpack.unpack(waiter).deadline, now) + GRACE
redis.call('HDEL', WAITERS, a.key)
redis.call('ZADD', SERVED, text(until_), a.key)
keep_until(until_)

local f = read_flight('state', 'worker', 'lease_until')
local unwanted = f.state == 'running' and f.lease_until > now and redis.call('HLEN', WAITERS) == 0
return {'called_off', fingerprint, waiter, unwanted and f.worker or ''}

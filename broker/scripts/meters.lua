-- meters: how each limit stands at this instant, for whoever works out when it grants what. Nothing is taken.
--
-- KEYS  flight, waiters, served (none of them is read)
-- ARGV  msgpack map: limits
-- Returns  for each of them, in their order, a msgpack map of
--   lease    allowed, held
--   fixed    starts, used; kept (whether the most urgent class has used it)
--   bucket   full_at
--   sliding  log: [instant, cost, ...], the oldest first
--   and of all of them mean: what a call takes of it on average, seconds of a lease; nil before the first has ended;
--   reserved: what it had reserved of it before it ended

local a = cmsgpack.unpack(ARGV[1])
local now = clock()

local function meter_of(limit)
  if limit.kind == 'lease' then
    return {allowed = allowed(limit), held = used_of(limit, now)}
  elseif limit.kind == 'fixed' then
    return {starts = windows_at(limit, now)[1].starts, used = used_of(limit, now),
      kept = redis.call('EXISTS', limit.key .. '|kept') == 1}
  elseif limit.kind == 'bucket' then
    return {full_at = full_at(limit)}
  end
  forget_old(limit, now)
  local log = {}
  local entries = redis.call('ZRANGE', limit.key, 0, -1, 'WITHSCORES')
  for i = 1, #entries, 2 do
    log[i], log[i + 1] = tonumber(entries[i + 1]), entry_cost(entries[i])
  end
  return {log = log}
end

local meters = {}
for i, limit in ipairs(a.limits) do
  local meter = meter_of(limit)
  local means = redis.call('HMGET', limit.key .. '|mean', 'mean', 'reserved')
  meter.mean, meter.reserved = tonumber(means[1] or nil), tonumber(means[2] or nil)
  meters[i] = cmsgpack.pack(meter)
end
return meters

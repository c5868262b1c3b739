-- left: how much of each limit is left at this instant. Nothing is taken.
--
-- KEYS  flight, waiters, served (none of them is read)
-- ARGV  msgpack map: limits
-- Returns  a number for each of them, in their order

local a = cmsgpack.unpack(ARGV[1])
local now = clock()

local function used_of(limit)
  if limit.kind == 'lease' then
    return redis.call('ZCOUNT', limit.key, text(now), '+inf')
  elseif limit.kind == 'fixed' then
    return tonumber(redis.call('GET', windows_at(limit, now)[1].key) or '0')
  elseif limit.kind == 'bucket' then
    return math.max(full_at(limit) - now, 0) / seconds_for(limit, 1)
  end
  forget_old(limit, now)
  return tonumber(redis.call('GET', limit.key .. ':sum') or '0')
end

local left = {}
for i, limit in ipairs(a.limits) do
  left[i] = text(math.max(0, (limit.burst or limit.amount) - used_of(limit)))
end
return left

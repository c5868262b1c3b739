-- left: how much of each limit is left at this instant. Nothing is taken.
--
-- KEYS  flight, waiters, served (none of them is read)
-- ARGV  msgpack map: limits
-- Returns  a number for each of them, in their order

local a = cmsgpack.unpack(ARGV[1])
local now = clock()

local left = {}
for i, limit in ipairs(a.limits) do
  left[i] = text(math.max(0, (limit.burst or limit.amount) - used_of(limit, now)))
end
return left

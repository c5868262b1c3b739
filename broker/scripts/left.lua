-- left: how much of each limit is left at this instant. Nothing is taken.
--
-- KEYS  flight, waiters, served (none of them is read)
-- ARGV  msgpack map: limits
-- Returns  for each of them, in their order: how much is used; the most that may be used at once, which is less than the
--          limit says while its provider is overloaded; the instant at which some of it comes back, 0 where nothing is
--          used, or where only the end of a call can tell

local a = cmsgpack.unpack(ARGV[1])
local now = clock()

local function comes_back_at(limit)
  if limit.kind == 'fixed' then
    return windows_at(limit, now)[1].ends
  elseif limit.kind == 'bucket' then
    return full_at(limit)
  end
  local oldest = redis.call('ZRANGE', limit.key, 0, 0, 'WITHSCORES')
  return tonumber(oldest[2]) + limit.window_s + limit.slack_s
end

local answer = {}
for _, limit in ipairs(a.limits) do
  local used, is_lease = used_of(limit, now), limit.kind == 'lease'
  answer[#answer + 1] = text(used)
  answer[#answer + 1] = text(is_lease and allowed(limit) or limit.burst or limit.amount)
  answer[#answer + 1] = text(used > 0 and not is_lease and comes_back_at(limit) or 0)
end
return answer

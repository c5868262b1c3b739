-- Limits: when each grants. Put after the prelude where a script deals in permits.
--
-- A limit is {kind = 'lease', key, amount, adapts, name}
--         or {kind = 'sliding', key, amount, window_s, slack_s, unit, cost, name}
--         or {kind = 'fixed', key, amount, window_s, slack_s, offset_s, unit, cost, name, at_once, kept, keeps}
--         or {kind = 'bucket', key, amount, window_s, slack_s, burst, unit, cost, name}.
-- `adapts`: the key that says how many are granted while the provider is overloaded. `at_once`: the share of a window
-- that this class may use at once; it gets the rest evenly as time passes. `kept`: the share that it leaves to the most
-- urgent class, if that has used this window or the one before, all of it at first and nothing at the end. `keeps`: this
-- is that class.
-- A refusal is {at = the instant to ask again, name, limit}, the last only where others may get that limit's next
-- permit; nil where nothing refuses.
--
-- A call reaches the provider at some instant within slack_s of its grant, which nobody here knows. So a sliding
-- window is longer by that much; near a border of fixed windows a call counts in both; and a bucket takes each call
-- before for as late as it can be, and the next for as early.

local LEASE_POLL_S = 0.2 -- a lease may end at any time: ask again after this
local REFUND_POLL_S = 1 -- what is charged as used may turn out to be less than was reserved: ask again after this
local REFUNDED_WITHIN_S = 60 -- where the wait is longer than calls take, that is no reason to ask
local LITTLE = 0.000001

local function cost_of(limit)
  -- What is larger than the whole window, or the whole bucket, takes the whole of it.
  return math.min(limit.cost, limit.burst or limit.amount)
end

-- Fixed windows.

local function window_of(limit, index)
  local starts = index * limit.window_s + limit.offset_s
  return {key = limit.key .. ':' .. string.format('%d', index), starts = starts, ends = starts + limit.window_s}
end

-- The window of this instant, and the one beyond a border nearby.
local function windows_at(limit, now)
  local index = math.floor((now - limit.offset_s) / limit.window_s)
  local window = window_of(limit, index)
  if now < window.starts + limit.slack_s then
    return {window, window_of(limit, index - 1)}
  elseif now >= window.ends - limit.slack_s then
    return {window, window_of(limit, index + 1)}
  end
  return {window}
end

local function fixed_wait(limit, now)
  local wait
  for _, window in ipairs(windows_at(limit, now)) do
    local used = tonumber(redis.call('GET', window.key) or '0')
    if used + cost_of(limit) > limit.amount + LITTLE and (not wait or window.ends > wait) then
      wait = window.ends
    end
  end
  return wait and wait + limit.slack_s
end

-- The instant at which this class may use as much of the window as will have been used then.
local function paced_wait(limit, now)
  local at_once = limit.at_once or 1
  if limit.kept and redis.call('EXISTS', limit.key .. '|kept') == 1 then
    at_once = math.min(at_once, 1 - limit.kept)
  end
  if at_once == 1 then
    return nil
  end
  local window = windows_at(limit, now)[1]
  local share = (tonumber(redis.call('GET', window.key) or '0') + cost_of(limit)) / limit.amount
  local due = window.starts + (share - at_once) / (1 - at_once) * limit.window_s
  return due > now and math.min(due, window.ends) or nil
end

-- Sliding windows: who took how much, by the instant of the grant.

local function entry_cost(member)
  return tonumber(string.match(member, ':([^:]*)$'))
end

local function forget_old(limit, now)
  local old = redis.call('ZRANGEBYSCORE', limit.key, '-inf', text(now - limit.window_s - limit.slack_s))
  for _, member in ipairs(old) do
    redis.call('ZREM', limit.key, member)
    redis.call('INCRBYFLOAT', limit.key .. ':sum', -entry_cost(member))
  end
  if redis.call('ZCARD', limit.key) == 0 then
    redis.call('DEL', limit.key .. ':sum') -- rounding errors end here
  end
end

local function sliding_wait(limit, now)
  forget_old(limit, now)
  local excess = tonumber(redis.call('GET', limit.key .. ':sum') or '0') + cost_of(limit) - limit.amount
  if excess <= LITTLE then
    return nil
  end
  local freed, from, span = 0, 0, limit.window_s + limit.slack_s
  while true do
    local page = redis.call('ZRANGE', limit.key, from, from + 63, 'WITHSCORES')
    if #page == 0 then
      return now + span
    end
    for i = 1, #page, 2 do
      freed = freed + entry_cost(page[i])
      if freed >= excess - LITTLE then
        return tonumber(page[i + 1]) + span
      end
    end
    from = from + 64
  end
end

-- Buckets: the instant at which it will be full again, as in the generic cell rate algorithm.

local function seconds_for(limit, cost)
  return cost * limit.window_s / limit.amount
end

local function full_at(limit)
  return tonumber(redis.call('GET', limit.key) or '0')
end

local function bucket_wait(limit, now)
  local missing = math.max(full_at(limit) - now, 0)
  local excess = missing + seconds_for(limit, cost_of(limit)) - seconds_for(limit, limit.burst)
  return excess > LITTLE and now + excess or nil
end

-- Leases: how many calls are in flight. Their number gives way while the provider is overloaded: a third less, at
-- most once for the calls that were under way together, and one more for each full round that goes well (AIMD).

local SHRINKS = 0.7
local ADAPTED_S = 600 -- what nothing has changed for so long is forgotten

local function allowed(limit)
  if not limit.adapts then
    return limit.amount
  end
  return math.min(limit.amount, math.floor(tonumber(redis.call('HGET', limit.adapts, 'to') or limit.amount)))
end

local function lease_wait(limit, now)
  redis.call('ZREMRANGEBYSCORE', limit.key, '-inf', text(now))
  return redis.call('ZCARD', limit.key) >= allowed(limit) and now + LEASE_POLL_S or nil
end

local function adapt(note, to, ...)
  redis.call('HSET', note.adapts, 'to', text(to), ...)
  redis.call('EXPIRE', note.adapts, ADAPTED_S)
end

local function shrink(note, now)
  local shrunk_at = tonumber(redis.call('HGET', note.adapts, 'at') or '0')
  if note.at >= shrunk_at then
    adapt(note, math.max(1, allowed(note) * SHRINKS), 'at', text(now))
  end
end

local function grow(note)
  local adapted = redis.call('HMGET', note.adapts, 'to', 'at')
  local to = tonumber(adapted[1] or nil)
  if not to or note.at < tonumber(adapted[2]) or redis.call('ZCARD', note.key) < to / 2 then
    return -- as many as ever; or it speaks of the time before; or nobody needs more
  elseif to + 1 / to >= note.amount then
    redis.call('DEL', note.adapts)
  else
    adapt(note, to + 1 / to)
  end
end

-- Any of them.

-- The instant at which this limit may grant; nil when it grants now.
local function wait_of(limit, now)
  if limit.kind == 'lease' then
    return lease_wait(limit, now)
  elseif limit.kind == 'fixed' then
    return fixed_wait(limit, now)
  end
  local instant = limit.kind == 'bucket' and bucket_wait(limit, now) or limit.kind == 'sliding' and sliding_wait(limit, now)
  if instant and limit.unit ~= 'requests' and instant - now <= REFUNDED_WITHIN_S then
    return math.min(instant, now + REFUND_POLL_S)
  end
  return instant or nil
end

-- How much of it is used at this instant, in its own unit.
local function used_of(limit, now)
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

local function later_of(one, other)
  return (not one or other and other.at > one.at) and other or one
end

-- The latest of this refusal and those of the limits.
local function refusal_of(limits, now, refusal)
  for _, limit in ipairs(limits) do
    local instant, paced = wait_of(limit, now), false
    if not instant and limit.kind == 'fixed' then
      instant, paced = paced_wait(limit, now), true -- it waits for the time, and is in nobody's way
    end
    refusal = later_of(refusal, instant and {at = instant, name = limit.name, limit = not paced and limit or nil})
  end
  return refusal
end

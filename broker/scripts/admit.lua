-- admit: what becomes of a request that has reached the entrance.
--
-- KEYS  flight, waiters, served
-- ARGV  msgpack map: key, waiter, deadline, rank (0 most urgent), durable, max_age_s (how old an answer
--       may be; 0 takes none), keep_s (how long its own answer is fresh), backoff_s, longest_backoff_s,
--       limits: [{key, amount, window_s, name}] of the agent and the fleet, in that order,
--       queue (where its job goes; '': it is in no line), agent,
--       earliest: [instant, limit] or [], when a provider's limit lets it start
--       budgets: [limit], fixed ones as limits.lua has them, of which something must be left; `own`: of the agent alone
-- Returns one of
--   hit, why (served|known|fresh|called_off), outcome ('' when nothing is kept), payer
--   joined
--   lead, leads so far, side (of the queue; 0: the common one), turn (in its line)
--   wait, instant, booked (1) or behind the deadline (0), limit

local a = cmsgpack.unpack(ARGV[1])
local now = clock()
local f = read_flight(
  'state', 'opened', 'leads', 'published_at', 'published_by', 'published_rank', 'parked_until',
  'lease_until', 'done_at', 'fresh_until', 'keep_s'
)

local function hit(why)
  local answer = redis.call('HMGET', FLIGHT, 'outcome', 'payer')
  return {'hit', why, answer[1] or '', answer[2] or ''}
end

if redis.call('ZSCORE', SERVED, a.key) then
  return hit('served')
end
if f.state == 'done' and redis.call('HEXISTS', WAITERS, a.key) == 1 then
  return hit('known')
end
if f.fresh_until and now < f.fresh_until and now - f.done_at < a.max_age_s then
  return hit('fresh')
end

if not enlist(a.key, a.deadline) then
  return {'hit', 'called_off', '', ''}
end

-- From here it waits. The address is overwritten: it may have moved.
redis.call('HSET', WAITERS, a.key, a.waiter)
redis.call('ZREMRANGEBYSCORE', SERVED, '-inf', text(now))
keep_until(a.deadline + GRACE)

local open = f.state == 'queued' or f.state == 'running'
if open and a.keep_s > (f.keep_s or 0) then
  redis.call('HSET', FLIGHT, 'keep_s', a.keep_s)
end

-- A durable request never rests on Redis's word alone: it leads a job of its own, which claim makes harmless.
if f.state == 'running' and f.lease_until > now and not a.durable then
  return {'joined'}
end
if open and f.published_at then
  -- As long again as it has waited so far, however often it was led meanwhile (as at each reconnect).
  local waited_s = f.published_at - (f.opened or f.published_at)
  local backoff = math.min(math.max(a.backoff_s, waited_s), a.longest_backoff_s)
  local alive = now < f.published_at + backoff and (f.parked_until or 0) <= now
  local rank = f.published_rank or 3 -- below all: Redis was emptied, and the worker knows no publisher
  if alive and f.published_by ~= a.key and rank <= a.rank and not a.durable then
    return {'joined'}
  end
end

local function wait(instant, booked, name)
  if f.state == 'done' then
    redis.call('HDEL', WAITERS, a.key) -- else it would be known when it comes back, and get the old answer
  end
  return {'wait', text(instant), booked, name}
end

if a.earliest[1] and a.earliest[1] >= a.deadline then
  return wait(a.earliest[1], '0', a.earliest[2])
end

-- Who has nothing left to spend waits here, and is in nobody's way; what all have spent is waited for in line.
for _, budget in ipairs(a.budgets) do
  local opens_at = fixed_wait(budget, now)
  if opens_at and (budget.own or opens_at >= a.deadline) then
    return wait(opens_at, opens_at < a.deadline and '1' or '0', budget.name)
  end
end

-- Only what leads is limited. A refusal books an instant for this id, so that it passes then; one limit
-- after the other, so that who waits for his own does not hold up those behind him in the fleet's.
for _, limit in ipairs(a.limits) do
  local whole = math.max(1, math.floor(limit.amount))
  local window_s = limit.window_s * whole / limit.amount -- 0.5 in a minute is 1 in two
  local booked = tonumber(redis.call('ZSCORE', limit.key, a.key) or nil)
  if not booked then
    redis.call('ZREMRANGEBYSCORE', limit.key, '-inf', text(now - window_s))
    local nth = redis.call('ZRANGE', limit.key, -whole, -whole, 'WITHSCORES')
    booked = nth[2] and math.max(now, tonumber(nth[2]) + window_s) or now
    if booked >= a.deadline then
      return wait(booked, '0', limit.name)
    end
    redis.call('ZADD', limit.key, text(booked), a.key)
    redis.call('EXPIREAT', limit.key, math.ceil(booked + window_s) + 1)
  end
  if booked > now then
    return wait(booked, '1', limit.name)
  end
end

if open then
  redis.call('HINCRBY', FLIGHT, 'leads', 1)
else
  begin(a.key, now)
  redis.call('HSET', FLIGHT, 'keep_s', a.keep_s)
end
redis.call('HSET', FLIGHT, 'published_at', text(now), 'published_by', a.key, 'published_rank', a.rank,
  'parked_until', 0)
keep_until(a.deadline + GRACE)
local side, turn = '0', '0'
if a.queue ~= '' then
  side, turn = enter_line(a.queue, a.agent, a.deadline, now)
end
return {'lead', tostring(open and f.leads + 1 or 1), side, turn}

-- commit: a call has ended in a result, or in an error that ends the flight.
--
-- KEYS  flight, waiters, served
-- ARGV  msgpack map: key, waiter, deadline (the job's own waiter), token, started, permit_key,
--       ok (a result, or an error), outcome, events (msgpack, what is to be published about it), keep_s,
--       shared_s (for how long an error is shared with newcomers; 0: not at all),
--       retry_at (an error gives way while a waiter lives beyond this instant; 0: never),
--       bill: {requests, tokens, reserved_tokens, usd}, left: {limit's key: what the provider said is left of it},
--       parts: [key], of the provider, which a result shows to be well,
--       failed: [] or [{key, until_, grow_s}], the part that failed, where this is an error of the provider's
-- Returns one of
--   stored, broke, payer, events, outcome, waiter...   these have no answer yet; broke is 1 where a circuit opened
--   duplicate, 0, payer, events, outcome, waiter...    another result came first; this spend was one too many
--   stale                                          an error of somebody who no longer holds the claim
--   living                                         somebody has time for another try, or a call made beside this one
--                                                  may still answer: release instead

local a = cmsgpack.unpack(ARGV[1])
local now = clock()
local f = read_flight('state', 'status', 'token', 'opened', 'result_token', 'keep_s', 'spends', 'payer', 'events',
  'fresh_until', 'hedge_until')

local how = {bill = a.bill, left = a.left, let_in = #a.failed == 0, ok = a.ok}

local broke = '0'

local function settle()
  return end_call(a.permit_key, how, {}, a.failed, now)
end

if a.ok then
  note_success(a.parts)
end

local function answer(verdict, broke, events)
  return append_waiters({verdict, broke, redis.call('HGET', FLIGHT, 'payer') or '', events,
    redis.call('HGET', FLIGHT, 'outcome')})
end

-- Who is said to have paid is one of those who get the answer, wherever there is one.
local function payer(key)
  for _, candidate in ipairs({key or a.key, a.key}) do
    if redis.call('HEXISTS', WAITERS, candidate) == 1 then
      return candidate
    end
  end
  local waiting = redis.call('HKEYS', WAITERS)
  table.sort(waiting)
  return waiting[1] or key or a.key
end

-- Whatever is answered, and even if Redis was emptied: the job's own waiter waits, unless it has its answer.
remember(a.key, a.waiter, a.deadline)

local repeated = f.state == 'done' and f.result_token == a.token
if not repeated then
  if a.ok then
    if f.state == 'done' and f.status == 'ok' then
      settle()
      return answer('duplicate', '0', f.events or '')
    end
    if f.opened and a.started < f.opened and f.token ~= a.token then
      -- Reopened since: who waits now asked for a newer answer; not so the job's own waiter, whom an emptied
      -- Redis forgot.
      settle()
      local served = redis.call('ZSCORE', SERVED, a.key)
      return {'duplicate', '0', a.key, '', a.outcome, not served and a.waiter or nil}
    end
  else
    if f.state and f.token ~= a.token then
      settle()
      return {'stale'}
    end
    if (a.retry_at > 0 and latest_deadline() > a.retry_at) or (f.hedge_until or 0) > now then
      return {'living'}
    end
  end

  broke = settle()
  local fresh_until = now + (a.ok and math.max(f.keep_s or 0, a.keep_s) or a.shared_s)
  if a.ok and f.status == 'ok' then
    fresh_until = math.max(fresh_until, f.fresh_until) -- what others stored for longer, they find for as long
  end
  -- Events of an earlier end, which nobody has published yet, go with these.
  redis.call('HSET', FLIGHT, 'state', 'done', 'status', a.ok and 'ok' or 'error', 'outcome', a.outcome,
    'done_at', text(now), 'fresh_until', text(fresh_until), 'result_token', a.token,
    'events', (f.events or '') .. a.events, 'payer', payer(f.payer))
  if f.token == a.token then
    redis.call('HDEL', FLIGHT, 'doubts') -- its holder has passed them on
  end
  if a.ok and (f.spends or 0) > 0 then
    redis.call('HINCRBY', FLIGHT, 'spends', -1)
  end
  redis.call('HDEL', FLIGHT, 'token', 'worker', 'lease_until', 'call', 'parked_until', 'published_at')
  keep_until(fresh_until)
end
return answer('stored', broke, redis.call('HGET', FLIGHT, 'events') or '')

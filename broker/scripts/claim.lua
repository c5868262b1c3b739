-- claim: may this worker call the provider for this flight, now?
--
-- KEYS  flight, waiters, served
-- ARGV  msgpack map: key, waiter, deadline (the job's own waiter), worker, token, lease_s, max_spends,
--       call (msgpack, what a later claimant needs to report this one as doubtful), permit_key,
--       limits: shared ones, budgets: of all agents, own_budgets: of this one, closed: [key], paused: [hash, field] or [],
--       accounts: [{name, limits, keys: [{closed: [key]}], closed: [key]}], rotation, used_key, notes_key,
--       rank (0 most urgent), shares: [number] by rank, seat (where jobs of this rank wait for the same permits),
--       more (whether others do, there), place (in its line, as rounds.lua says; none: agents need not go round),
--       lines: [key], the orders of all that waits for the provider's lane,
--       retries: the provider's retry budget, as retries.lua has it,
--       parks: [seconds], longest first: for how long the job can be parked. It comes from a worker that never
--       calls, in place of `call` and all that follows: nothing is granted, no permit taken, no spend noted
-- Returns one of
--   expired, events, doubts               nobody waits any more; the flight ends here
--   done, outcome, payer, events, waiter...    the answer is there; these have not got it
--   own, token                            this process runs it, or a claim of its own got lost on the way
--   busy, instant                         somebody else runs it, or a hedge may still answer; that lease ends then
--   spent, spends, started, doubts        max_spends is used up; the claim is for committing that
--   late, instant, limit, started, doubts permits are refused until then, and nobody waits for so long; the claim is for
--                                         committing that. `time` in place of a limit: calls last until then on
--                                         average, and others wait for the permit
--   idle, spends, seconds                 it may be run, by one that calls; written down as parked for so long
--   spared, instant, again, providers     these have failed it, and the retry budget of this one is used up; written down
--                                         as parked until then. `again`: 1 where it was told so for that pause before
--   over, instant, limit                  its agent's own budget is spent until then: it holds up nobody else
--   later, instant, limit, waiter...      permits are refused until then; these want to know. `turn` in place of a
--                                         limit: there is a permit, for a class that goes first; `round`: for an agent
--   run, account, key index, started, attempt, latest deadline, doubts, part...   it tries these half-open ones; a
--                                         broken one's key is followed by |fails
-- Doubts are the calls, one packed after the other, of earlier claims that nobody gave up.

local PAUSED_POLL_S = 0.4
local SURE_S = 2 -- a refusal for less is no more than the next look
local FOR_GOOD = 32503680000 -- the year 3000: an operator has closed it, and may open it
local UNSURE = {turn = true, round = true, circuit = true, key = true} -- what may open sooner than it says

local a = cmsgpack.unpack(ARGV[1])
local now = clock()
local f = read_flight(
  'state', 'status', 'token', 'worker', 'lease_until', 'spends', 'attempts', 'call', 'doubts', 'outcome', 'payer',
  'events', 'fresh_until', 'opened', 'line', 'failed', 'spared_until', 'hedge_until'
)

-- Missing means finished long ago, or lost by Redis: the job's own deadline tells which.
if not f.state and a.deadline <= now then
  return {'expired', '', ''}
end

local is_new = remember(a.key, a.waiter, a.deadline)

-- An error is for those who waited. Where an emptied Redis did not know that this one did, it begins anew.
if f.state == 'done' and is_new and f.status == 'error' and now >= (f.fresh_until or 0) then
  begin(a.key, now)
  f = {state = 'queued', opened = now, doubts = f.doubts, events = f.events}
end

if f.state == 'done' then
  return append_waiters({'done', f.outcome, f.payer or '', f.events or ''})
end

local leased = f.state == 'running' and f.lease_until > now
if leased and f.worker == a.worker then
  return {'own', f.token}
end
if leased then
  return {'busy', text(f.lease_until)}
end
if (f.hedge_until or 0) > now then
  return {'busy', text(f.hedge_until)}
end

-- A claim that nobody gave up, whose lease is over: its call may have been made, and billed. It is named until
-- the holder of a later claim has ended that: whoever is told first may die before passing it on.
local doubts = (f.doubts or '') .. (f.state == 'running' and f.call or '')

local function lay_down(...)
  redis.call('HSET', FLIGHT, 'doubts', doubts, ...)
  redis.call('HDEL', FLIGHT, 'call')
end

local latest = latest_deadline()
if latest <= now then
  lay_down('state', 'ended')
  redis.call('HDEL', FLIGHT, 'token', 'worker', 'lease_until')
  redis.call('DEL', WAITERS)
  leave_line(f.line, false)
  return {'expired', f.events or '', doubts}
end

if (f.spends or 0) >= a.max_spends then
  -- The token lets this worker, and nobody after it, commit the error.
  lay_down('state', 'running', 'token', a.token, 'worker', a.worker, 'lease_until', text(now + a.lease_s),
    'started', text(now))
  leave_line(f.line, false)
  return {'spent', tostring(f.spends), text(now), doubts}
end

if a.parks then
  local park_s = a.parks[#a.parks]
  for _, span in ipairs(a.parks) do
    if span < latest - now then
      park_s = span
      break
    end
  end
  -- A parked job shows no sign of life: whoever asks meanwhile leads anew.
  redis.call('HSET', FLIGHT, 'parked_until', text(now + park_s))
  keep_until(latest + GRACE)
  return {'idle', tostring(f.spends or 0), tostring(park_s)}
end

local function late(instant, name)
  lay_down('state', 'running', 'token', a.token, 'worker', a.worker, 'lease_until', text(now + a.lease_s),
    'started', text(now))
  leave_line(f.line, false)
  return {'late', text(instant), name, text(now), doubts}
end

-- Nothing starts at a paused provider, whatever a worker has heard: it asks again soon, since nobody knows
-- when an operator resumes.
if a.paused[1] and redis.call('HEXISTS', a.paused[1], a.paused[2]) == 1 then
  return append_waiters_who('tell_waits', {'later', text(now + PAUSED_POLL_S), 'paused'})
end

local retries = is_retry(a.retries, f.failed)
if retries and not may_retry(a.retries, now) then
  local again = (f.spared_until or 0) > now
  local back_at = text(again and f.spared_until or now + a.retries.park_s)
  redis.call('HSET', FLIGHT, 'parked_until', back_at, 'spared_until', back_at)
  leave_line(f.line, false)
  return {'spared', back_at, again and '1' or '0', f.failed}
end

local probes = {}
local refusal = refusal_of(a.limits, now, closed_refusal(a.closed, now, probes)) or turn_refusal(a.limits, a, now)
local chosen, accounts_refusal = choose(a, now)
local own_refusal = refusal_of(a.own_budgets, now)
refusal = later_of(later_of(refusal_of(a.budgets, now, refusal), accounts_refusal), own_refusal)
local own_at
if not refusal and a.place then
  refusal, own_at = round_refusal(a.place, a.seat, now)
end
local is_late = refusal and refusal.at >= latest and refusal.at > now + SURE_S and refusal.at < FOR_GOOD
if is_late and not UNSURE[refusal.name] then
  return late(refusal.at, refusal.name)
elseif refusal and refusal == own_refusal then
  leave_line(f.line, false)
  return {'over', text(refusal.at), refusal.name}
elseif refusal then
  if refusal.limit and #a.shares > 1 then
    leave_mark(refusal, a, now)
  end
  if refusal.limit and a.place then
    wait_in_hand(a.place, a.seat, refusal.at, now)
  end
  return append_waiters_who('tell_waits', {'later', text(refusal.at), refusal.name})
end

-- Where others wait for this permit, it is for one that can be expected to be answered in time.
local ends_at = others_wait(a.lines, f.line) and now + seconds_of_a_call(a.limits)
if ends_at and ends_at > latest then
  return late(ends_at, 'time')
end

for _, key in ipairs(chosen.probes) do
  probes[#probes + 1] = key
end
local limits = limits_with(chosen, a)
take_turns(limits, a, now)
if own_at then
  leave_hand(a.place, a.seat, own_at)
end
local notes = {note_grant(a, chosen.name, now)}
notes[#notes + 1] = retries_note(a.retries, retries)
take_permits(limits, probes, a.token, now, a.lease_s, a.permit_key, notes)

local call = cmsgpack.unpack(a.call)
call.account, call.started = chosen.name, now
redis.call('HSET', FLIGHT, 'state', 'running', 'token', a.token, 'worker', a.worker,
  'lease_until', text(now + a.lease_s), 'started', text(now), 'call', cmsgpack.pack(call), 'doubts', doubts)
if not f.opened then
  redis.call('HSET', FLIGHT, 'opened', text(now), 'payer', a.key, 'leads', 1)
end
redis.call('HINCRBY', FLIGHT, 'spends', 1)
leave_line(f.line, true)
local attempt = redis.call('HINCRBY', FLIGHT, 'attempts', 1)
keep_until(latest + GRACE)
local tried = {}
for i, key in ipairs(probes) do
  tried[i] = is_broken(key) and key .. '|fails' or key
end
return {'run', chosen.name, tostring(chosen.key - 1), text(now), tostring(attempt), text(latest), doubts, unpack(tried)}

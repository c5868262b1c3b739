-- hedge: may this worker call its provider besides, for a flight whose call takes long? Now, or not at all. The
-- claim of that call stays as it is: of the two, the first to commit a result is heard.
--
-- KEYS  flight, waiters, served
-- ARGV  msgpack map: hedges (the token of the claim whose call takes long), and as for claim: token, lease_s, call,
--       permit_key, limits, budgets, own_budgets, closed, paused, accounts, rotation, used_key, notes_key, rank, shares
-- Returns one of
--   no, why            over: that call has ended; hedged: it was once before; unwanted: nobody waits; same: it is at
--                      this provider; paused; half open: one call is to try it first; turn: others wait for a permit;
--                      else what refuses, as for claim
--   run, account, key index, started, attempt, latest deadline, ''

local a = cmsgpack.unpack(ARGV[1])
local now = clock()
local f = read_flight('state', 'token', 'lease_until', 'call', 'hedge')

local function no(why)
  return {'no', why}
end

if f.state ~= 'running' or f.token ~= a.hedges or f.lease_until <= now or not f.call then
  return no('over')
elseif f.hedge then
  return no('hedged')
elseif cmsgpack.unpack(f.call).provider == cmsgpack.unpack(a.call).provider then
  return no('same')
elseif a.paused[1] and redis.call('HEXISTS', a.paused[1], a.paused[2]) == 1 then
  return no('paused')
end
local latest = latest_deadline()
if latest <= now then
  return no('unwanted')
end

local probes = {}
local refusal = refusal_of(a.limits, now, closed_refusal(a.closed, now, probes))
refusal = refusal_of(a.own_budgets, now, refusal_of(a.budgets, now, refusal))
local chosen, accounts_refusal = choose(a, now)
refusal = refusal or accounts_refusal
if refusal then
  return no(refusal.name)
elseif #probes + #chosen.probes > 0 then
  return no('half open')
end

-- What others wait for is theirs, whichever class they are of.
local limits = limits_with(chosen, a)
for _, limit in ipairs(limits) do
  if is_marked(limit, a.rank, now) or next(marks_of_others(limit, a, now)) then
    return no('turn')
  end
end

take_permits(limits, {}, a.token, now, a.lease_s, a.permit_key, {note_grant(a, chosen.name, now)})
redis.call('HSET', FLIGHT, 'hedge', a.token, 'hedge_until', text(now + a.lease_s))
local attempt = redis.call('HINCRBY', FLIGHT, 'attempts', 1)
return {'run', chosen.name, tostring(chosen.key - 1), text(now), tostring(attempt), text(latest), ''}

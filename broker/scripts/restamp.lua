-- restamp: the call is sent later than its permits allow for; it takes them anew, at this instant.
--
-- KEYS  flight, waiters, served
-- ARGV  msgpack map: token, lease_s, permit_key, limits (those that claim took)
-- Returns one of
--   mine
--   later, instant, limit   they are refused now: nothing is held but the claim, which is to be released
--   lost                    somebody else runs it now, or it is finished

local a = cmsgpack.unpack(ARGV[1])
local now = clock()
local f = read_flight('state', 'token')

if f.state ~= 'running' or f.token ~= a.token then
  return {'lost'}
end
local probes, notes = settle_permits(a.permit_key, {bill = UNSPENT})
local refusal = refusal_of(a.limits, now)
if refusal then
  return {'later', text(refusal.at), refusal.name}
end
for _, note in ipairs(notes or {}) do
  note.at = now
end
take_permits(a.limits, probes or {}, a.token, now, a.lease_s, a.permit_key, notes or {})
return {'mine'}

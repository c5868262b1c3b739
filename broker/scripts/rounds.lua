-- Rounds: agents go round across workers, too. Put after limits.lua.
--
-- A worker starts what it has in hand by turns. One that has nothing but a busy agent's jobs in hand would by that be
-- many rounds ahead of another that has the jobs of everybody else, and take its permits. So a refused claim leaves at
-- its line the turn and the agent of what waits at its seat, until shortly after the instant at which it asks again.
-- Meanwhile no other agent's job goes that is too many rounds ahead of that.
-- When the seat is granted one, the next that can start there waits in its place, for no longer than the first would
-- have: who is refused no permits is short of none, and holds up nobody. Nor does what has no turn; it goes first.
--
-- line:<queue>|hands   hash   seat -> {the instant at which it asks again, turn, agent}, packed
--
-- A place is {queue, turn, agent, ahead: by more rounds may it not be ahead, next: [turn, agent] of what can start at
-- the same seat next, or []}.

local COMES_WITHIN_S = 0.5 -- so much later than it was told to may a worker ask
local SOON_S = 1 -- who asks again later than that would not take the permit, and leaves it to the others
local ROUND_POLL_S = 0.05
local HANDS_S = 60

local function hands_of(place)
  return string.match(FLIGHT, '^(.*)flight:') .. 'line:' .. place.queue .. '|hands'
end

-- The refusal, where this one is too far ahead of what waits at another seat; and the instant at which its own seat was
-- to ask again, where something waits there.
local function round_refusal(place, seat, now)
  local key, refusal, own_at = hands_of(place), nil, nil
  local hands = redis.call('HGETALL', key)
  for i = 1, #hands, 2 do
    local at, turn, agent = unpack(cmsgpack.unpack(hands[i + 1]))
    if at + COMES_WITHIN_S <= now then
      redis.call('HDEL', key, hands[i])
    elseif hands[i] == seat then
      own_at = at
    elseif agent ~= place.agent and place.turn > turn + place.ahead and at <= now + SOON_S then
      refusal = later_of(refusal, {at = math.max(at, now + ROUND_POLL_S), name = 'round'})
    end
  end
  return refusal, own_at
end

-- A claim of this seat was refused until then. Several ask at once: the earliest of them waits there.
local function wait_in_hand(place, seat, at, now)
  if place.turn == 0 then
    return
  end
  local key, turn, agent = hands_of(place), place.turn, place.agent
  local before = redis.call('HGET', key, seat)
  local known = before and cmsgpack.unpack(before)
  if known and known[1] + COMES_WITHIN_S > now and known[2] <= turn then
    if known[1] == at then
      return
    end
    turn, agent = known[2], known[3]
  end
  if redis.call('HSET', key, seat, cmsgpack.pack({at, turn, agent})) == 1 then
    redis.call('EXPIRE', key, HANDS_S)
  end
end

-- What waited at this seat has started.
local function leave_hand(place, seat, at)
  local turn, agent = unpack(place.next)
  if turn and turn > 0 then
    redis.call('HSET', hands_of(place), seat, cmsgpack.pack({at, turn, agent}))
  else
    redis.call('HDEL', hands_of(place), seat)
  end
end

-- Lines: who waits for a queue of jobs, whether there or in a queue beside it, and whose turn comes when.
-- Put after the prelude.
--
-- line:<queue>                   hash   agent -> the side queue that it has for itself
-- line:<queue>|turns             hash   agent -> when its next turn begins; '*reached': the turn of whoever started last;
--                                       '*count': how many have come
-- line:<queue>|*                 zset   fingerprint -> its turn: the order in which they start
-- line:<queue>|<side>            zset   agent -> its latest deadline; side 0 is the common queue
-- line:<queue>|<side>|<agent>    zset   fingerprint -> deadline, what it has waiting there
--
-- Agents take turns by start-time fair queueing (Goyal, Vin and Cheng, 1996): a job's turn is the end of its agent's
-- last one or, where the agent comes later, what the others have reached by then. So one with thousands waiting is
-- passed by whoever has less, and nobody saves up turns. Within a round they go as they came.
--
-- The first few of each agent wait in the common queue. Who has more gets a side queue for the rest, of its own as
-- long as there is a free one: what is next in turn has to be within a pool's reach, and not behind those.
-- Nothing rests on any of this but fairness.

local FEW = 8
local SIDES = 8
local LINE_S = 604800
local ROUND = 1000000 -- as many places has a round; a turn is its number and the place in it

local function order_of(place)
  return string.match(place, '^(.*)|%d$') .. '|*'
end

local function in_line(place, agent, now)
  local gone = redis.call('ZRANGEBYSCORE', place .. '|' .. agent, '-inf', text(now))
  if #gone > 0 then
    redis.call('ZREM', place .. '|' .. agent, unpack(gone))
    redis.call('ZREM', order_of(place), unpack(gone))
  end
  return redis.call('ZCARD', place .. '|' .. agent)
end

-- The side queue with the fewest waiting; the lowest of those that nobody uses.
local function emptiest_side(line, now)
  local best, least
  for side = 1, SIDES do
    local place, load = line .. '|' .. side, 0
    for _, agent in ipairs(redis.call('ZRANGE', place, 0, -1)) do
      load = load + in_line(place, agent, now)
    end
    if load == 0 then
      return side
    elseif not least or load < least then
      best, least = side, load
    end
  end
  return best
end

local function side_for(line, agent, now)
  local side = redis.call('HGET', line, agent)
  if side and in_line(line .. '|' .. side, agent, now) > 0 then
    return side
  elseif in_line(line .. '|0', agent, now) < FEW then
    redis.call('HDEL', line, agent)
    return '0'
  end
  side = tostring(emptiest_side(line, now))
  redis.call('HSET', line, agent, side)
  redis.call('EXPIRE', line, LINE_S)
  return side
end

-- The turn of this agent's next job. The others have reached the first turn that waits: workers start what they have
-- in hand, so that later ones may have started before it.
local function next_turn(line, agent)
  local turns, first = line .. '|turns', redis.call('ZRANGE', line .. '|*', 0, 0, 'WITHSCORES')
  local known = redis.call('HMGET', turns, '*reached', agent)
  local round = math.max(math.floor(tonumber(first[2] or known[1] or '0')), tonumber(known[2] or '0'))
  local place = redis.call('HINCRBY', turns, '*count', 1) % ROUND
  redis.call('HSET', turns, agent, round + 1)
  redis.call('EXPIRE', turns, LINE_S)
  return round + place / ROUND
end

-- Whether anybody waits in these lines, by their orders, beside the flight that stands at `own`.
local function others_wait(orders, own)
  local waiting = own and -1 or 0
  for _, order in ipairs(orders) do
    waiting = waiting + redis.call('ZCARD', order)
  end
  return waiting > 0
end

-- This flight waits in line no more; `started`: it was its turn.
local function leave_line(own, started)
  if not own then
    return
  end
  local place, agent = string.match(own, '^(.*)|([^|]*)$')
  local line, fingerprint = string.match(place, '^(.*)|%d$'), string.match(FLIGHT, 'flight:(.*)$')
  local turn = redis.call('ZSCORE', line .. '|*', fingerprint)
  if started and turn and tonumber(turn) > tonumber(redis.call('HGET', line .. '|turns', '*reached') or '0') then
    redis.call('HSET', line .. '|turns', '*reached', turn)
  end
  redis.call('ZREM', line .. '|*', fingerprint)
  redis.call('ZREM', own, fingerprint)
  redis.call('HDEL', FLIGHT, 'line')
  if redis.call('ZCARD', own) == 0 then
    redis.call('ZREM', place, agent)
  end
end

-- Puts this flight in line, unless it is. Returns the side that its job goes to, and its turn.
local function enter_line(queue, agent, deadline, now)
  local prefix, fingerprint = string.match(FLIGHT, '^(.*)flight:(.*)$')
  local line, own = prefix .. 'line:' .. queue, redis.call('HGET', FLIGHT, 'line')
  local side = own and string.sub(own, 1, #line + 1) == line .. '|' and string.match(own, '|(%d)|[^|]*$')
  local turn = side and redis.call('ZSCORE', line .. '|*', fingerprint)
  if turn then
    return side, turn
  end
  leave_line(own, false)
  side, turn = side_for(line, agent, now), text(next_turn(line, agent))
  local place = line .. '|' .. side
  own = place .. '|' .. agent
  redis.call('HSET', FLIGHT, 'line', own)
  redis.call('ZADD', place, text(deadline), agent)
  redis.call('ZADD', own, text(deadline), fingerprint)
  redis.call('ZADD', line .. '|*', turn, fingerprint)
  for _, key in ipairs({place, own, line .. '|*'}) do
    redis.call('EXPIRE', key, LINE_S)
  end
  return side, turn
end

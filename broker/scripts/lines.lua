-- Lines: who waits for a queue of jobs, and whether there or in a queue beside it. Put after the prelude.
--
-- line:<queue>                   hash   agent -> the side queue that it has for itself
-- line:<queue>|<side>            zset   agent -> its latest deadline; side 0 is the common queue
-- line:<queue>|<side>|<agent>    zset   fingerprint -> deadline, what it has waiting there
-- line:<queue>|<side>|*          zset   fingerprint -> the instant at which it came, of all agents
--
-- The first few of each agent wait in the common queue. Who has more gets a side queue for the rest, of its own as
-- long as there is a free one, so that nobody else waits behind those. Nothing rests on this but fairness.

local FEW = 8
local SIDES = 8
local LINE_S = 604800

local function in_line(place, agent, now)
  local gone = redis.call('ZRANGEBYSCORE', place .. '|' .. agent, '-inf', text(now))
  if #gone > 0 then
    redis.call('ZREM', place .. '|' .. agent, unpack(gone))
    redis.call('ZREM', place .. '|*', unpack(gone))
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

-- Puts this flight in line, unless it is; returns the side that its job goes to.
local function enter_line(queue, agent, deadline, now)
  local prefix, fingerprint = string.match(FLIGHT, '^(.*)flight:(.*)$')
  local own = redis.call('HGET', FLIGHT, 'line')
  if own and redis.call('ZSCORE', own, fingerprint) then
    return string.match(own, '|(%d)|[^|]*$')
  end
  local line = prefix .. 'line:' .. queue
  local side = side_for(line, agent, now)
  local place = line .. '|' .. side
  own = place .. '|' .. agent
  redis.call('HSET', FLIGHT, 'line', own)
  redis.call('ZADD', place, text(deadline), agent)
  redis.call('ZADD', own, text(deadline), fingerprint)
  redis.call('ZADD', place .. '|*', text(now), fingerprint)
  for _, key in ipairs({place, own, place .. '|*'}) do
    redis.call('EXPIRE', key, LINE_S)
  end
  return side
end

-- This flight waits in line no more.
local function leave_line(own)
  if own then
    local place, agent = string.match(own, '^(.*)|([^|]*)$')
    local fingerprint = string.match(FLIGHT, 'flight:(.*)$')
    redis.call('ZREM', own, fingerprint)
    redis.call('ZREM', place .. '|*', fingerprint)
    redis.call('HDEL', FLIGHT, 'line')
    if redis.call('ZCARD', own) == 0 then
      redis.call('ZREM', place, agent)
    end
  end
end

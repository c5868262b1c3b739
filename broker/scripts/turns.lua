-- Turns: which class goes first where several wait for a permit of the same limit, at whichever replica.
--
-- A refused claim leaves a mark at the limit, until shortly after the instant at which it asks again. While others are
-- marked, the classes share the limit's permits by start-time fair queueing (Goyal, Vin and Cheng, 1996): the one with
-- the smallest start tag goes, among equal ones the most urgent.
-- But a class waits for a less urgent one only where that can go at once, or is owed several turns: what needs a
-- large part of a limit would else hold up everybody each time.
-- `|marks:<rank>` holds seats by the end of their marks; `|turns` the virtual time, `v`, and each rank's tag.

local MARK_S = 0.5 -- so much later than it was told to may a replica ask
local TURN_POLL_S = 0.05
local TURNS_S = 3600
local OWED_TURNS = 3

local function marks_key(limit, rank)
  return limit.key .. '|marks:' .. rank
end

-- When a class begins to wait it stands where the others are by now; it has saved up nothing.
local function start_tag(limit, rank, is_marked)
  local tags = redis.call('HMGET', limit.key .. '|turns', 'v', rank)
  local own = tonumber(tags[2] or '0')
  return is_marked and own or math.max(tonumber(tags[1] or '0'), own)
end

local function is_marked(limit, rank, now)
  return redis.call('ZCOUNT', marks_key(limit, rank), '(' .. text(now), '+inf') > 0
end

-- The first mark of another class, by rank.
local function marks_of_others(limit, a, now)
  local marks = {}
  for rank = 0, #a.shares - 1 do
    if rank ~= a.rank then
      local first = redis.call('ZRANGEBYSCORE', marks_key(limit, rank), '(' .. text(now), '+inf',
        'WITHSCORES', 'LIMIT', 0, 1)
      marks[rank] = tonumber(first[2] or nil)
    end
  end
  return marks
end

local function goes_first(limit, rank, ends, a, now)
  local mine = start_tag(limit, a.rank, is_marked(limit, a.rank, now))
  local ahead = mine - start_tag(limit, rank, true)
  if rank < a.rank then
    return ahead >= 0
  end
  return ahead > 0 and (ends - MARK_S <= now or ahead > OWED_TURNS / a.shares[rank + 1])
end

-- The refusal, where it is another class's turn at one of these limits.
local function turn_refusal(limits, a, now)
  for _, limit in ipairs(limits) do
    for rank, ends in pairs(marks_of_others(limit, a, now)) do
      if goes_first(limit, rank, ends, a, now) then
        return {at = math.max(ends - MARK_S, now + TURN_POLL_S), name = 'turn', limit = limit}
      end
    end
  end
end

local function leave_mark(refusal, a, now)
  local key = marks_key(refusal.limit, a.rank)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
  if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', refusal.limit.key .. '|turns', a.rank, text(start_tag(refusal.limit, a.rank)))
    redis.call('EXPIRE', refusal.limit.key .. '|turns', TURNS_S)
  end
  redis.call('ZADD', key, text(refusal.at + MARK_S), a.seat)
  redis.call('EXPIREAT', key, math.ceil(tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])) + 60)
end

-- This class's turn is taken, where others wait for theirs.
local function take_turns(limits, a, now)
  for _, limit in ipairs(limits) do
    if next(marks_of_others(limit, a, now)) then
      local start = start_tag(limit, a.rank, is_marked(limit, a.rank, now))
      redis.call('HSET', limit.key .. '|turns', 'v', text(start), a.rank, text(start + 1 / a.shares[a.rank + 1]))
      redis.call('EXPIRE', limit.key .. '|turns', TURNS_S)
    end
    local marks = marks_key(limit, a.rank)
    if redis.call('ZREM', marks, a.seat) == 1 and a.more then -- else the others would go by themselves until it asks
      redis.call('ZADD', marks, text(now + MARK_S), a.seat)
      redis.call('EXPIREAT', marks, math.ceil(now + MARK_S) + 60)
    end
  end
end

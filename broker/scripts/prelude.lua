-- What the scripts share. Put before each of them when it is loaded.
--
-- Every script takes KEYS flight, waiters, served and one msgpack map as ARGV[1], and answers with an
-- array of strings. Instants are epoch seconds on Redis's own clock, spans are seconds.
--
-- flight   hash   state queued|running|done|ended, opened, payer, leads, published_at|_by|_rank, parked_until,
--                 token, worker, lease_until, started, call, doubts, spends, attempts,
--                 outcome, status, done_at, fresh_until, result_token, events, keep_s, keep_until
-- waiters  hash   waiter key -> waiter (msgpack), those who have no answer yet
-- served   zset   waiter key -> the instant after which nobody can ask again
-- request:<waiter key>   text   the fingerprint of the flight it waits for; '' when it was called off

local FLIGHT, WAITERS, SERVED = KEYS[1], KEYS[2], KEYS[3]
local GRACE = 60 -- a record outlives the latest deadline of its waiters by this
local CALLED_OFF_S = 300 -- for how long a cancel that came before its request is remembered

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function text(instant)
  return string.format('%.6f', instant)
end

-- The fields of the flight as a table; numbers where `numeric` says so, nil where there is none.
local NUMERIC = {
  opened = true, leads = true, published_at = true, published_rank = true, parked_until = true,
  lease_until = true, started = true, spends = true, attempts = true, done_at = true,
  fresh_until = true, keep_s = true, keep_until = true,
}
local function read_flight(...)
  local names, flight = {...}, {}
  local values = redis.call('HMGET', FLIGHT, unpack(names))
  for i, name in ipairs(names) do
    local value = values[i]
    if value then
      flight[name] = NUMERIC[name] and tonumber(value) or value
    end
  end
  return flight
end

-- The record lives at least until this instant; its three keys end together.
local function keep_until(instant)
  local kept = tonumber(redis.call('HGET', FLIGHT, 'keep_until') or '0')
  if instant > kept then
    kept = instant
    redis.call('HSET', FLIGHT, 'keep_until', text(kept))
  end
  local second = math.ceil(kept)
  redis.call('EXPIREAT', FLIGHT, second)
  redis.call('EXPIREAT', WAITERS, second)
  redis.call('EXPIREAT', SERVED, second)
end

-- Where a request's flight is found by those who know only its id, and the flight's fingerprint.
local function request_key(key)
  local prefix, fingerprint = string.match(FLIGHT, '^(.*)flight:(.*)$')
  return prefix .. 'request:' .. key, fingerprint
end

-- Writes down which flight a request waits for. False when it was called off before: its cancel overtook
-- it, or came while Redis had forgotten it.
local function enlist(key, deadline)
  local name, fingerprint = request_key(key)
  local before = redis.call('SET', name, fingerprint, 'GET', 'EXAT', math.ceil(deadline + GRACE))
  if before ~= '' then
    return true
  end
  redis.call('SET', name, '', 'EX', CALLED_OFF_S)
  return false
end

-- A waiter that the record does not know is written down, unless it was served or called off.
local function remember(key, waiter, deadline)
  if redis.call('ZSCORE', SERVED, key) then
    return
  end
  if redis.call('HSETNX', WAITERS, key, waiter) == 1 and not enlist(key, deadline) then
    redis.call('HDEL', WAITERS, key)
    redis.call('ZADD', SERVED, text(deadline + GRACE), key)
  end
  keep_until(deadline + GRACE)
end

-- The latest deadline among the waiters without an answer; 0 when there are none.
local function latest_deadline()
  local latest = 0
  for _, packed in ipairs(redis.call('HVALS', WAITERS)) do
    local deadline = cmsgpack.unpack(packed).deadline
    if deadline > latest then
      latest = deadline
    end
  end
  return latest
end

local function append_waiters(answer)
  for _, packed in ipairs(redis.call('HVALS', WAITERS)) do
    answer[#answer + 1] = packed
  end
  return answer
end

-- Those of them who said so: `wish` is stream or tell_waits.
local function append_waiters_who(wish, answer)
  for _, packed in ipairs(redis.call('HVALS', WAITERS)) do
    if cmsgpack.unpack(packed)[wish] then
      answer[#answer + 1] = packed
    end
  end
  return answer
end

-- Permits -------------------------------------------------------------------------------------
-- A limit is {kind = 'lease', key, amount, name}
--         or {kind = 'sliding', key, amount, window_s, unit, cost, name}
--         or {kind = 'fixed', key, amount, window_s, offset_s, unit, cost, name}.

local LEASE_POLL_S = 0.2 -- a lease may end at any time: ask again after this

local function fixed_window(limit, now)
  local index = math.floor((now - limit.offset_s) / limit.window_s)
  return limit.key .. ':' .. string.format('%d', index), (index + 1) * limit.window_s + limit.offset_s
end

local function cost_of(limit)
  return math.min(limit.cost, limit.amount) -- what is larger than the whole window takes the whole window
end

local function entry_cost(member)
  return tonumber(string.match(member, ':([^:]*)$'))
end

local function forget_old(limit, now)
  local old = redis.call('ZRANGEBYSCORE', limit.key, '-inf', text(now - limit.window_s))
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
  if excess <= 0.000001 then
    return nil
  end
  local freed, from = 0, 0
  while true do
    local page = redis.call('ZRANGE', limit.key, from, from + 63, 'WITHSCORES')
    if #page == 0 then
      return now + limit.window_s
    end
    for i = 1, #page, 2 do
      freed = freed + entry_cost(page[i])
      if freed >= excess - 0.000001 then
        return tonumber(page[i + 1]) + limit.window_s
      end
    end
    from = from + 64
  end
end

-- The instant at which this limit may grant; nil when it grants now.
local function wait_of(limit, now)
  if limit.kind == 'lease' then
    redis.call('ZREMRANGEBYSCORE', limit.key, '-inf', text(now))
    return redis.call('ZCARD', limit.key) >= limit.amount and now + LEASE_POLL_S or nil
  elseif limit.kind == 'fixed' then
    local key, ends = fixed_window(limit, now)
    local used = tonumber(redis.call('GET', key) or '0')
    return used + cost_of(limit) > limit.amount + 0.000001 and ends or nil
  end
  return sliding_wait(limit, now)
end

-- The latest instant that any of the limits asks to wait for, and the name of that limit.
local function latest_wait(limits, now, wait, name)
  for _, limit in ipairs(limits) do
    local instant = wait_of(limit, now)
    if instant and (not wait or instant > wait) then
      wait, name = instant, limit.name
    end
  end
  return wait, name
end

-- Takes a permit of each limit, and notes under the token how to settle it.
local function take_permits(limits, token, now, lease_s, permit_key)
  local notes = {}
  for _, limit in ipairs(limits) do
    local note = {kind = limit.kind, key = limit.key, unit = limit.unit, token = token}
    if limit.kind == 'lease' then
      redis.call('ZADD', limit.key, text(now + lease_s), token)
    elseif limit.kind == 'fixed' then
      local key, ends = fixed_window(limit, now)
      note.key, note.cost = key, cost_of(limit)
      redis.call('INCRBYFLOAT', key, note.cost)
      redis.call('EXPIREAT', key, math.ceil(ends) + 60)
    else
      note.cost = cost_of(limit)
      note.member = token .. ':' .. text(note.cost)
      redis.call('ZADD', limit.key, text(now), note.member)
      redis.call('INCRBYFLOAT', limit.key .. ':sum', note.cost)
      redis.call('EXPIRE', limit.key, math.ceil(limit.window_s) + 60)
      redis.call('EXPIRE', limit.key .. ':sum', math.ceil(limit.window_s) + 60)
    end
    notes[#notes + 1] = note
  end
  redis.call('SET', permit_key, cmsgpack.pack(notes), 'EX', 86400)
end

local function settle_note(note, spent)
  local difference = spent - note.cost
  if note.kind == 'fixed' then
    if redis.call('EXISTS', note.key) == 1 then
      redis.call('INCRBYFLOAT', note.key, difference)
    end
    return
  end
  local at = redis.call('ZSCORE', note.key, note.member)
  if at then
    redis.call('ZREM', note.key, note.member)
    redis.call('ZADD', note.key, at, note.token .. ':' .. text(spent))
    redis.call('INCRBYFLOAT', note.key .. ':sum', difference)
  end
end

-- Ends the leases of a call and books what it really used; nil for a unit keeps what was reserved.
local function settle_permits(permit_key, bill)
  local packed = redis.call('GET', permit_key)
  if not packed then
    return
  end
  redis.call('DEL', permit_key)
  for _, note in ipairs(cmsgpack.unpack(packed)) do
    if note.kind == 'lease' then
      redis.call('ZREM', note.key, note.token)
    elseif bill and bill[note.unit] then
      settle_note(note, bill[note.unit])
    end
  end
end

-- What the scripts share. Put before each of them when it is loaded.
--
-- Every script takes KEYS flight, waiters, served and one msgpack map as ARGV[1], and answers with an
-- array of strings. Instants are epoch seconds on Redis's own clock, spans are seconds.
--
-- flight   hash   state queued|running|done|ended, opened, payer, leads, published_at|_by|_rank, parked_until,
--                 token, worker, lease_until, started, call, doubts, spends, attempts,
--                 failed and spared_until (as retries.lua says),
--                 hedge (the token of a call that was made beside the claim's), hedge_until (its lease),
--                 outcome, status, done_at, fresh_until, result_token, events, keep_s, keep_until,
--                 line (where it waits, as lines.lua says)
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
  fresh_until = true, keep_s = true, keep_until = true, spared_until = true, hedge_until = true,
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

-- A waiter that the record does not know is written down, unless it was served or called off. Whether it was.
local function remember(key, waiter, deadline)
  if redis.call('ZSCORE', SERVED, key) then
    return false
  end
  local is_new = redis.call('HSETNX', WAITERS, key, waiter) == 1
  if is_new and not enlist(key, deadline) then
    redis.call('HDEL', WAITERS, key)
    redis.call('ZADD', SERVED, text(deadline + GRACE), key)
    is_new = false
  end
  keep_until(deadline + GRACE)
  return is_new
end

-- A flight that was done, or is not known, begins; events of its last end that nobody has published stay.
local function begin(payer, now)
  redis.call('HDEL', FLIGHT, 'token', 'worker', 'lease_until', 'started', 'call', 'failed', 'spared_until', 'hedge',
    'hedge_until')
  redis.call('HSET', FLIGHT, 'state', 'queued', 'opened', text(now), 'payer', payer, 'leads', 1, 'spends', 0,
    'attempts', 0)
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

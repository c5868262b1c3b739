-- Parts of a provider that refuse: a key, an account, a model of one, all of it. The value is the instant until
-- which such a part is closed. From then on it is half open: one call may try it, and that one's end decides.
-- `|probe` holds its token, `|tries` how many of them in a row were refused. `|fails` counts the calls in a row, of
-- all replicas, that a part failed rather than refused: with the last one of so many its circuit opens, which closes it.

local PROBE_S = 30 -- a probe whose worker died is forgotten after this
local PROBE_POLL_S = 0.5 -- a probe may end at any time: ask again after this
local HALF_OPEN_S = 600 -- what nobody has tried for so long counts as open
local LONGEST_CLOSED_S = 3600 -- where the provider does not say how long
local MOST_DOUBLINGS = 5
local BREAKS_AT = 5 -- calls that failed in a row

local function is_broken(key)
  return tonumber(redis.call('GET', key .. '|fails') or '0') >= BREAKS_AT
end

-- The instant until which this part is closed, nil when it is not; half-open ones are added to `probes`.
local function closed_until(key, now, probes)
  local instant = tonumber(redis.call('GET', key) or nil)
  if not instant then
    return nil
  elseif instant > now then
    return instant
  elseif redis.call('EXISTS', key .. '|probe') == 1 then
    return now + PROBE_POLL_S
  end
  probes[#probes + 1] = key
end

-- The latest refusal of these parts; those that are half open are added to `probes`.
local function closed_refusal(keys, now, probes)
  local refusal
  for _, key in ipairs(keys) do
    local instant = closed_until(key, now, probes)
    refusal = later_of(refusal, instant and {at = instant, name = is_broken(key) and 'circuit' or 'closed'})
  end
  return refusal
end

-- Closes a part; where grow_s is not 0, for longer with each probe in a row that was refused.
local function close(part, now, was_probed)
  local until_ = part.until_
  if part.grow_s > 0 then
    local tries = was_probed and tonumber(redis.call('INCRBYFLOAT', part.key .. '|tries', 1))
      or tonumber(redis.call('GET', part.key .. '|tries') or '0')
    until_ = now + math.min(part.grow_s * 2 ^ math.min(tries, MOST_DOUBLINGS), LONGEST_CLOSED_S)
    redis.call('EXPIRE', part.key .. '|tries', math.ceil(until_ - now) + HALF_OPEN_S)
  end
  until_ = math.max(until_, tonumber(redis.call('GET', part.key) or '0'))
  if until_ > now then
    redis.call('SET', part.key, text(until_), 'EXAT', math.ceil(until_) + HALF_OPEN_S)
  end
end

-- A call failed at this part. Closes it, where its circuit is open or opens by that; returns whether it just opened.
local function note_failure(part, now, was_probed)
  local fails = redis.call('INCRBYFLOAT', part.key .. '|fails', 1)
  redis.call('EXPIRE', part.key .. '|fails', HALF_OPEN_S)
  if tonumber(fails) >= BREAKS_AT then
    close(part, now, was_probed)
  end
  return tonumber(fails) == BREAKS_AT
end

local function note_success(parts)
  for _, key in ipairs(parts) do
    redis.call('DEL', key .. '|fails')
  end
end

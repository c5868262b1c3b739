-- Permits: what a call must have of every limit that it is under. Put after the prelude where a script asks for it.
--
-- A limit is {kind = 'lease', key, amount, name}
--         or {kind = 'sliding', key, amount, window_s, slack_s, unit, cost, name}
--         or {kind = 'fixed', key, amount, window_s, slack_s, offset_s, unit, cost, name}
--         or {kind = 'bucket', key, amount, window_s, slack_s, burst, unit, cost, name}.
--
-- A call reaches the provider at some instant within slack_s of its grant, which nobody here knows. So a sliding
-- window is longer by that much; near a border of fixed windows a call counts in both; and a bucket takes each call
-- before for as late as it can be, and the next for as early.

local LEASE_POLL_S = 0.2 -- a lease may end at any time: ask again after this
local LITTLE = 0.000001
local FOREIGN = 0.02 -- this share of a limit is within what the books and the provider's may differ by

local function cost_of(limit)
  -- What is larger than the whole window, or the whole bucket, takes the whole of it.
  return math.min(limit.cost, limit.burst or limit.amount)
end

-- Fixed windows.

local function window_of(limit, index)
  local starts = index * limit.window_s + limit.offset_s
  return {key = limit.key .. ':' .. string.format('%d', index), starts = starts, ends = starts + limit.window_s}
end

-- The window of this instant, and the one beyond a border nearby.
local function windows_at(limit, now)
  local index = math.floor((now - limit.offset_s) / limit.window_s)
  local window = window_of(limit, index)
  if now < window.starts + limit.slack_s then
    return {window, window_of(limit, index - 1)}
  elseif now >= window.ends - limit.slack_s then
    return {window, window_of(limit, index + 1)}
  end
  return {window}
end

local function fixed_wait(limit, now)
  local wait
  for _, window in ipairs(windows_at(limit, now)) do
    local used = tonumber(redis.call('GET', window.key) or '0')
    if used + cost_of(limit) > limit.amount + LITTLE and (not wait or window.ends > wait) then
      wait = window.ends
    end
  end
  return wait and wait + limit.slack_s
end

-- Sliding windows: who took how much, by the instant of the grant.

local function entry_cost(member)
  return tonumber(string.match(member, ':([^:]*)$'))
end

local function forget_old(limit, now)
  local old = redis.call('ZRANGEBYSCORE', limit.key, '-inf', text(now - limit.window_s - limit.slack_s))
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
  if excess <= LITTLE then
    return nil
  end
  local freed, from, span = 0, 0, limit.window_s + limit.slack_s
  while true do
    local page = redis.call('ZRANGE', limit.key, from, from + 63, 'WITHSCORES')
    if #page == 0 then
      return now + span
    end
    for i = 1, #page, 2 do
      freed = freed + entry_cost(page[i])
      if freed >= excess - LITTLE then
        return tonumber(page[i + 1]) + span
      end
    end
    from = from + 64
  end
end

-- Buckets: the instant at which it will be full again, as in the generic cell rate algorithm.

local function seconds_for(limit, cost)
  return cost * limit.window_s / limit.amount
end

local function full_at(limit)
  return tonumber(redis.call('GET', limit.key) or '0')
end

local function bucket_wait(limit, now)
  local missing = math.max(full_at(limit) - now, 0)
  local excess = missing + seconds_for(limit, cost_of(limit)) - seconds_for(limit, limit.burst)
  return excess > LITTLE and now + excess or nil
end

-- Parts of a provider that refuse: a key, an account, a model of one, all of it. The value is the instant until
-- which such a part is closed. From then on it is half open: one call may try it, and that one's end decides.
-- `|probe` holds its token, `|tries` how many of them in a row were refused.

local PROBE_S = 30 -- a probe whose worker died is forgotten after this
local PROBE_POLL_S = 0.5 -- a probe may end at any time: ask again after this
local HALF_OPEN_S = 600 -- what nobody has tried for so long counts as open
local LONGEST_CLOSED_S = 3600 -- where the provider does not say how long

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

-- Closes a part; where grow_s is not 0, for longer with each probe in a row that was refused.
local function close(part, now, was_probed)
  local until_ = part.until_
  if part.grow_s > 0 then
    local tries = was_probed and tonumber(redis.call('INCRBYFLOAT', part.key .. '|tries', 1))
      or tonumber(redis.call('GET', part.key .. '|tries') or '0')
    until_ = now + math.min(part.grow_s * 2 ^ tries, LONGEST_CLOSED_S)
    redis.call('EXPIRE', part.key .. '|tries', math.ceil(until_ - now) + HALF_OPEN_S)
  end
  until_ = math.max(until_, tonumber(redis.call('GET', part.key) or '0'))
  if until_ > now then
    redis.call('SET', part.key, text(until_), 'EXAT', math.ceil(until_) + HALF_OPEN_S)
  end
end

-- All of them.

-- The instant at which this limit may grant; nil when it grants now.
local function wait_of(limit, now)
  if limit.kind == 'lease' then
    redis.call('ZREMRANGEBYSCORE', limit.key, '-inf', text(now))
    return redis.call('ZCARD', limit.key) >= limit.amount and now + LEASE_POLL_S or nil
  elseif limit.kind == 'fixed' then
    return fixed_wait(limit, now)
  elseif limit.kind == 'bucket' then
    return bucket_wait(limit, now)
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

-- Takes a permit of this limit; returns how to settle it. `used` is what the books say then, this call included.
local function take_permit(limit, token, now, lease_s)
  local note = {kind = limit.kind, key = limit.key, unit = limit.unit, token = token, at = now}
  if limit.kind == 'lease' then
    redis.call('ZADD', limit.key, text(now + lease_s), token)
    return note
  end
  note.cost, note.amount = cost_of(limit), limit.burst or limit.amount
  note.span_s = math.ceil(limit.window_s + limit.slack_s) + 60
  if limit.kind == 'fixed' then
    note.keys = {}
    for i, window in ipairs(windows_at(limit, now)) do
      local used = tonumber(redis.call('INCRBYFLOAT', window.key, note.cost))
      note.used = note.used or used
      redis.call('EXPIREAT', window.key, math.ceil(window.ends) + 60)
      note.keys[i] = window.key
    end
  elseif limit.kind == 'bucket' then
    note.per_unit_s = seconds_for(limit, 1)
    local full = math.max(full_at(limit), now + limit.slack_s) + seconds_for(limit, note.cost)
    note.used = (full - now) / note.per_unit_s
    redis.call('SET', limit.key, text(full), 'EXAT', math.ceil(full) + 60)
  else
    note.member = token .. ':' .. text(note.cost)
    redis.call('ZADD', limit.key, text(now), note.member)
    note.used = tonumber(redis.call('INCRBYFLOAT', limit.key .. ':sum', note.cost))
    redis.call('EXPIRE', limit.key, note.span_s)
    redis.call('EXPIRE', limit.key .. ':sum', note.span_s)
  end
  return note
end

-- The provider had less left at a call's arrival than the books say: others use the limit, too, or it is lower than
-- was configured. What is missing is booked at this instant; once, since calls granted before know nothing of that.
local function book_foreign(note, remaining, now)
  local foreign, last = note.amount - remaining - note.used, note.key .. '|foreign'
  if foreign <= math.max(1, note.amount * FOREIGN) or tonumber(redis.call('GET', last) or '0') >= note.at then
    return
  end
  redis.call('SET', last, text(now), 'EX', note.span_s)
  if note.kind == 'fixed' then
    if redis.call('EXISTS', note.keys[1]) == 1 then
      redis.call('INCRBYFLOAT', note.keys[1], foreign)
    end
  elseif note.kind == 'bucket' then
    local full = math.max(full_at(note), now) + foreign * note.per_unit_s
    redis.call('SET', note.key, text(full), 'EXAT', math.ceil(full) + 60)
  else
    redis.call('ZADD', note.key, text(now), 'foreign-' .. note.token .. ':' .. text(foreign))
    redis.call('INCRBYFLOAT', note.key .. ':sum', foreign)
    redis.call('EXPIRE', note.key, note.span_s)
    redis.call('EXPIRE', note.key .. ':sum', note.span_s)
  end
end

-- Takes a permit of each limit, and the right to try each half-open part; notes under the token how to settle it.
local function take_permits(limits, probes, token, now, lease_s, permit_key)
  local notes = {}
  for i, limit in ipairs(limits) do
    notes[i] = take_permit(limit, token, now, lease_s)
  end
  for _, key in ipairs(probes) do
    redis.call('SET', key .. '|probe', token, 'EX', PROBE_S)
    notes[#notes + 1] = {kind = 'probe', key = key, token = token}
  end
  redis.call('SET', permit_key, cmsgpack.pack(notes), 'EX', 86400)
end

local UNSPENT = {requests = 0, tokens = 0, reserved_tokens = 0, usd = 0} -- the bill of a call that never left

local function settle_note(note, spent)
  local difference = spent - note.cost
  if note.kind == 'fixed' then
    for _, key in ipairs(note.keys) do
      if redis.call('EXISTS', key) == 1 then
        redis.call('INCRBYFLOAT', key, difference)
      end
    end
    return
  elseif note.kind == 'bucket' then
    local full = redis.call('GET', note.key)
    if full then
      redis.call('SET', note.key, text(tonumber(full) + difference * note.per_unit_s), 'KEEPTTL')
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

-- Ends the leases of a call and books what it really used; nil for a unit keeps what was reserved. What it has tried
-- is open again if it was `let_in`; returns these parts. `left` is what the provider said is left of a limit, by key.
local function settle_permits(permit_key, bill, let_in, left)
  local probed, packed = {}, redis.call('GET', permit_key)
  if not packed then
    return probed
  end
  redis.call('DEL', permit_key)
  for _, note in ipairs(cmsgpack.unpack(packed)) do
    if note.kind == 'probe' then
      if redis.call('GET', note.key .. '|probe') == note.token then
        redis.call('DEL', note.key .. '|probe')
        if let_in and tonumber(redis.call('GET', note.key) or '0') <= clock() then -- not closed anew meanwhile
          redis.call('DEL', note.key, note.key .. '|tries')
        end
        probed[#probed + 1] = note.key
      end
    elseif note.kind == 'lease' then
      redis.call('ZREM', note.key, note.token)
    else
      if left and left[note.key] then
        book_foreign(note, left[note.key], clock())
      end
      if bill and bill[note.unit] then
        settle_note(note, bill[note.unit])
      end
    end
  end
  return probed
end

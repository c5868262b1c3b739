-- Permits: what a call takes of every limit that it is under, and how that is settled when it has ended.

local FOREIGN = 0.02 -- this share of a limit is within what the books and the provider's may differ by

-- Takes a permit of this limit; returns how to settle it. `used` is what the books say then, this call included.
local function take_permit(limit, token, now, lease_s)
  local note = {kind = limit.kind, key = limit.key, unit = limit.unit, token = token, at = now}
  if limit.kind == 'lease' then
    redis.call('ZADD', limit.key, text(now + lease_s), token)
    note.adapts, note.amount = limit.adapts, limit.amount
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
    if limit.keeps then
      redis.call('SET', limit.key .. '|kept', 1, 'EXAT', math.ceil(windows_at(limit, now)[1].ends + limit.window_s))
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

-- Takes a permit of each limit, the right to try each half-open part, and a retry where this is one; notes under the
-- token how to settle it. `notes` are those of its account and of the retry budget.
local function take_permits(limits, probes, token, now, lease_s, permit_key, notes)
  for _, note in ipairs(notes) do
    if note.took then
      take_retry(note.key, now)
    end
  end
  for _, limit in ipairs(limits) do
    notes[#notes + 1] = take_permit(limit, token, now, lease_s)
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

local WEIGHT = 0.2 -- of the latest call in an account's averages

local function average(note, what, value)
  local field = note.name .. '|' .. what
  local before = tonumber(redis.call('HGET', note.key, field) or nil)
  redis.call('HSET', note.key, field, text(before and before + WEIGHT * (value - before) or value))
end

-- What a limit is used for on average: `mean` of the last `n` calls or so. A call takes its cost of a rate, of which it
-- had `reserved` another amount until it ended, and keeps a unit of concurrency for as long as it lasts. What calls
-- reserve is learned soon, and changes.
local MEAN_OF = {mean = 20, reserved = 4}
local MEANS_S = 172800

local function learn(key, value, reserved)
  local n = redis.call('HINCRBY', key .. '|mean', 'n', 1)
  for what, latest in pairs({mean = value, reserved = reserved}) do
    local mean = tonumber(redis.call('HGET', key .. '|mean', what) or '0')
    redis.call('HSET', key .. '|mean', what, text(mean + (latest - mean) / math.min(n, MEAN_OF[what])))
  end
  redis.call('EXPIRE', key .. '|mean', MEANS_S)
end

-- How many seconds a call of this provider lasts on average; 0: nobody knows.
local function seconds_of_a_call(limits)
  for _, limit in ipairs(limits) do
    if limit.adapts then -- the provider's own lease
      return tonumber(redis.call('HGET', limit.key .. '|mean', 'mean') or '0')
    end
  end
  return 0
end

local function settle_account(note, how)
  if how.ok then
    average(note, 'seconds', clock() - note.at)
    average(note, 'success', 1)
  elseif how.failed then
    average(note, 'success', 0)
  end
end

-- Ends the leases of a call and books what it really used. `how` it ended: `bill`, the units used, where a missing one
-- keeps what was reserved; `left`, what the provider said is left of a limit, by key; `let_in`: what it has tried is
-- open again; `ok`, `failed`, `overloaded`; `in_vain`: the provider failed it. Returns what it has tried, and the notes
-- of its account and of the retry budget; nil where it was settled before.
local function settle_permits(permit_key, how)
  local probed, others, packed = {}, {}, redis.call('GET', permit_key)
  if not packed then
    return nil
  end
  redis.call('DEL', permit_key)
  for _, note in ipairs(cmsgpack.unpack(packed)) do
    if note.kind == 'probe' then
      if redis.call('GET', note.key .. '|probe') == note.token then
        redis.call('DEL', note.key .. '|probe')
        if how.let_in and tonumber(redis.call('GET', note.key) or '0') <= clock() then -- not closed anew meanwhile
          redis.call('DEL', note.key, note.key .. '|tries', note.key .. '|fails')
        end
        probed[#probed + 1] = note.key
      end
    elseif note.kind == 'lease' then
      if note.adapts and how.overloaded then
        shrink(note, clock())
      elseif note.adapts and how.ok then
        grow(note)
      end
      redis.call('ZREM', note.key, note.token)
      if how.bill ~= UNSPENT then
        learn(note.key, clock() - note.at)
      end
    elseif note.kind == 'account' then
      settle_account(note, how)
      others[#others + 1] = note
    elseif note.kind == 'retries' then
      settle_retries(note, how)
      others[#others + 1] = note
    else
      if how.left and how.left[note.key] then
        book_foreign(note, how.left[note.key], clock())
      end
      local spent = how.bill and how.bill[note.unit]
      if spent then
        settle_note(note, spent)
      end
      if note.unit ~= 'requests' and how.bill ~= UNSPENT then
        learn(note.key, spent or note.cost, note.cost)
      end
    end
  end
  return probed, others
end

-- Settles the permits of a call that has ended, closes the parts of its provider that refused it, and counts the failure
-- of those that failed. Returns '1' where a circuit opened by that, '0' where none did.
local function end_call(permit_key, how, closed, failed, now)
  how.in_vain = #failed > 0
  local settled, probed, opened = settle_permits(permit_key, how), {}, '0'
  for _, key in ipairs(settled or {}) do
    probed[key] = true
  end
  for _, part in ipairs(closed) do
    close(part, now, probed[part.key])
  end
  for _, part in ipairs(settled and failed or {}) do -- asked a second time, it is counted already
    opened = note_failure(part, now, probed[part.key]) and '1' or opened
  end
  return opened
end

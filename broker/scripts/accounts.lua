-- Accounts: which of those that grant goes next. Each rotation gives an account a number, the smallest goes.
--
-- A note on an account, `|seconds` and `|success` under its name, is a moving average over its calls; `|at` says when
-- the last one was granted.

local NOTES_S = 172800
local HALF_LIFE_S = 300 -- who was slow is given another chance

local function note_of(a, name, what)
  return tonumber(redis.call('HGET', a.notes_key, name .. '|' .. what) or nil)
end

-- The expected seconds to an answer, tries that fail included; less the longer ago it was tried.
local function expected_s(a, name, now)
  local seconds = note_of(a, name, 'seconds')
  if not seconds then
    return nil
  end
  local age = now - (note_of(a, name, 'at') or now)
  return seconds / math.max(note_of(a, name, 'success') or 1, 0.05) * 0.5 ^ (age / HALF_LIFE_S)
end

local function share_left(limits, now)
  local least = 1
  for _, limit in ipairs(limits) do
    least = math.min(least, 1 - used_of(limit, now) / (limit.burst or limit.amount))
  end
  return math.max(least, 0.001)
end

local rotations = {
  least_used = function(a, account)
    return tonumber(redis.call('ZSCORE', a.used_key, account.name) or '0')
  end,
  round_robin = function(a, account)
    return note_of(a, account.name, 'at') or 0
  end,
  performance = function(a, account, now)
    return expected_s(a, account.name, now) or 0
  end,
  intelligent = function(a, account, now)
    return (expected_s(a, account.name, now) or 1) / share_left(account.limits, now)
  end,
}

-- A candidate is {name, key = index, limits, probes}, or its refusal.
local function candidate_of(account, a, now)
  local probes, key, tried, key_refusal = {}, nil, nil, nil
  local refusal = refusal_of(account.limits, now, closed_refusal(account.closed, now, probes))
  for index, one in ipairs(account.keys) do
    local half_open = {}
    local closed = closed_refusal(one.closed, now, half_open)
    if not closed then
      key, tried = index, half_open
      break
    end
    if not key_refusal or closed.at < key_refusal.at then
      key_refusal = {at = closed.at, name = 'key'}
    end
  end
  refusal = later_of(refusal, not key and key_refusal) or turn_refusal(account.limits, a, now)
  if refusal then
    return nil, refusal
  end
  for _, half_open in ipairs(tried) do
    probes[#probes + 1] = half_open
  end
  return {name = account.name, key = key, limits = account.limits, probes = probes}
end

-- The account to call with; else the refusal of the one that grants first.
local function choose(a, now)
  local chosen, least, soonest
  for _, account in ipairs(a.accounts) do
    local candidate, refusal = candidate_of(account, a, now)
    if candidate then
      local number = rotations[a.rotation](a, account, now)
      if not chosen or number < least then
        chosen, least = candidate, number
      end
    elseif not soonest or refusal.at < soonest.at then
      soonest = refusal
    end
  end
  return chosen, not chosen and soonest or nil
end

-- All the limits of which a call with this account takes a permit.
local function limits_with(chosen, a)
  local limits = {}
  for _, list in ipairs({a.limits, chosen.limits, a.budgets, a.own_budgets}) do
    for _, limit in ipairs(list) do
      limits[#limits + 1] = limit
    end
  end
  return limits
end

-- Returns the note by which the account hears how the call has ended, if its rotation wants to know.
local function note_grant(a, name, now)
  redis.call('ZINCRBY', a.used_key, 1, name)
  redis.call('EXPIRE', a.used_key, NOTES_S)
  if a.rotation == 'least_used' then
    return nil
  end
  redis.call('HSET', a.notes_key, name .. '|at', text(now))
  redis.call('EXPIRE', a.notes_key, NOTES_S)
  return {kind = 'account', key = a.notes_key, name = name, at = now}
end

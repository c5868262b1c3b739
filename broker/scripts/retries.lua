-- Retry budgets: how many calls may ask a provider once more for a flight that it has failed. Put before permits.lua.
--
-- A token bucket that calls which end well feed, as gRPC throttles retries (its proposal A6) and Finagle budgets them
-- (RetryBudget). A retry takes one; it is given back unless the retry fails, too, so that a provider that answers again
-- is asked again as fast as it answers. Each call that ends well brings `share` of one, and one comes every EACH_S. So
-- of n calls that end well come at most n * share retries that fail, beside what was there and what time brings.
--
-- A budget is {provider, key, share, park_s}, or empty where there is none. `park_s`: for how long a job is parked where
-- it is used up. Its key holds the instant from which a retry may go; each EACH_S by which that is over stands for one
-- more, up to MOST of them. No key: all of them.
-- The flight's field `failed` names the providers that have failed it; `spared_until` is the end of the latest pause for
-- want of a retry.

local MOST = 10
local EACH_S = 5

local function names(failed, provider)
  return string.find(' ' .. failed .. ' ', ' ' .. provider .. ' ', 1, true) ~= nil
end

local function is_retry(budget, failed)
  return budget.key and failed and names(failed, budget.provider)
end

local function may_retry(budget, now)
  return tonumber(redis.call('GET', budget.key) or '0') <= now
end

local function take_retry(key, now)
  local from = math.max(tonumber(redis.call('GET', key) or '0'), now - (MOST - 1) * EACH_S) + EACH_S
  redis.call('SET', key, text(from), 'EXAT', math.ceil(from + (MOST - 1) * EACH_S))
end

local function feed_retries(key, count)
  local from = redis.call('GET', key)
  if from then
    redis.call('SET', key, text(tonumber(from) - count * EACH_S), 'KEEPTTL')
  end
end

-- Notes that the provider has failed this flight, if there still is one.
local function note_failed_by(provider)
  local failed = redis.call('HGET', FLIGHT, 'failed')
  if not failed and redis.call('EXISTS', FLIGHT) == 1 then
    redis.call('HSET', FLIGHT, 'failed', provider)
  elseif failed and not names(failed, provider) then
    redis.call('HSET', FLIGHT, 'failed', failed .. ' ' .. provider)
  end
end

-- The note by which the budget hears how a call has ended; nil where there is none.
local function retries_note(budget, took)
  return budget.key and {kind = 'retries', key = budget.key, provider = budget.provider, share = budget.share, took = took}
end

local function settle_retries(note, how)
  if how.in_vain then
    note_failed_by(note.provider)
  else
    feed_retries(note.key, (note.took and 1 or 0) + (how.ok and note.share or 0))
  end
end

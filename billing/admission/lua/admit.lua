-- ADMIT: judge one request and write its named hold, or say which limit refused it. A refusal changes nothing.
--
-- KEYS  1 epoch  2 opens  3 org  4 key  5 hold  6 deadlines  7 usage  8 tombstone
--       9 org requests rate  10 org input rate  11 org output rate  12 key requests rate  13 key input rate
--       14 key output rate
-- ARGV  1 request id  2 organization id  3 key id  4 amount (nanos)  5 lease (ms)  6 input tokens  7 output tokens
--       8 config version of the key as the gateway knows it  9 most waiting events  10 orphan event (JSON)
--       11 digest of the end user ('' without one)
-- Returns {verdict, ...}:
--   {'REBUILD'}                        the shard is not built on this server, or not open yet
--   {'LOAD', 'org' | 'key' | spender, epoch}
--                                      not in Redis: load it from Postgres, publish it under this epoch and ask again
--   {'INVALID'}                        an amount that no request of ours can have
--   {'STALE'}                          the gateway's copy of the key is older than this one: read it again
--   {'REFUSED', code, current, limit, reset (us), rates...}
--   {'ADMITTED', day, available after (nanos), '1' where the organization wants costs in usage, time of admission (ms),
--    spenders that it counts for ('' for none: 'member:7-12 user:7-a1b2'), rates...}
-- rates: for requests, input tokens, output tokens: limit, remaining, reset (us from now); -1, -1, 0 without a limit.

if not (is_amount(ARGV[4]) and is_amount(ARGV[6]) and is_amount(ARGV[7])) then return {'INVALID'} end
local now = micros_now()
local epoch = standing_epoch(KEYS[1])
if not epoch then return {'REBUILD'} end
local opens = redis.call('GET', KEYS[2])
if opens and tonumber(opens) > now / 1000 then return {'REBUILD'} end

local org = redis.call('HMGET', KEYS[3], 'status', 'credit', 'limit', 'unsettled', 'held', 'open',
  'requests_per_minute', 'input_tokens_per_minute', 'output_tokens_per_minute', 'concurrent_requests',
  'daily_budget', 'weekly_budget', 'monthly_budget', 'shows_cost', 'expiries',
  'only_notifies', 'override', 'counts')
if not org[1] or not org[2] then return {'LOAD', 'org', epoch} end
local key = redis.call('HMGET', KEYS[4], 'status', 'config_version', 'expires_at', 'organization', 'member', 'open',
  'requests_per_minute', 'input_tokens_per_minute', 'output_tokens_per_minute', 'concurrent_requests',
  'daily_budget', 'weekly_budget', 'monthly_budget', 'only_notifies', 'override')
if not key[1] then return {'LOAD', 'key', epoch} end

local day = math.floor(now / 1000000 / DAY_SECONDS)

-- By kind (requests, input tokens, output tokens): the rate of the organization, and at the next place that of the key.
local rates = {}
local function judge(kind, wanted)
  if org[6 + kind] then rates[2 * kind] = judge_rate(KEYS[8 + kind], org[6 + kind], wanted, now) end
  if key[6 + kind] then rates[2 * kind + 1] = judge_rate(KEYS[11 + kind], key[6 + kind], wanted, now) end
end
judge(1, 1)
judge(2, tonumber(ARGV[6]))
judge(3, tonumber(ARGV[7]))

local function report_rates(reply)
  local at = #reply
  for kind = 1, 3 do
    local tightest, other = rates[2 * kind], rates[2 * kind + 1]
    if other and (not tightest or other.remaining < tightest.remaining) then tightest = other end
    if tightest then
      reply[at + 1], reply[at + 2], reply[at + 3] = tightest.limit, tightest.remaining, tightest.reset
    else
      reply[at + 1], reply[at + 2], reply[at + 3] = -1, -1, 0
    end
    at = at + 3
  end
  return reply
end

local function refuse(code, current, limit, reset)
  return report_rates({'REFUSED', code, current, limit, reset})
end

local now_ms = math.floor(now / 1000)
-- A lot pays for nothing that is admitted from its expiry on, whenever Postgres notices it.
local available = tonumber(org[2]) - expired_credit(org[15], now_ms) + tonumber(org[3] or '0') - tonumber(org[4] or '0') - tonumber(org[5] or '0')

-- The same request again: it has its hold already, or has ended.
if redis.call('EXISTS', KEYS[5], KEYS[8]) > 0 then
  local kept = redis.call('HMGET', KEYS[5], 'day', 'admitted_at', 'spenders')
  if not kept[1] then return refuse('request_ended', 0, 0, 0) end
  return report_rates({'ADMITTED', kept[1], available, org[14] or '', kept[2] or '0', kept[3] or ''})
end

if key[4] ~= ARGV[2] then return refuse('key_revoked', 0, 0, 0) end
if key[1] ~= 'active' then return refuse('key_' .. key[1], 0, 0, 0) end
if key[3] and tonumber(key[3]) * 1000000 <= now then return refuse('key_expired', 0, 0, 0) end
if tonumber(key[2]) > tonumber(ARGV[8]) then return {'STALE'} end
if org[1] ~= 'active' then return refuse('organization_' .. org[1], 0, 0, 0) end
if redis.call('XLEN', KEYS[7]) >= tonumber(ARGV[9]) then return refuse('settlement_behind', 0, 0, 1000000) end

for place = 2, 7 do
  local rate = rates[place]
  if rate and rate.refused then
    local names = {'rate_limited_requests', 'rate_limited_input_tokens', 'rate_limited_output_tokens'}
    return refuse(names[math.floor(place / 2)], rate.remaining, rate.limit, rate.retry)
  end
end
for _, holder in ipairs({org, key}) do
  if holder[10] and tonumber(holder[6] or '0') >= tonumber(holder[10]) then
    return refuse('rate_limited_concurrency', tonumber(holder[6]), tonumber(holder[10]), 1000000)
  end
end

-- Judge all budgets. Returns the answer where one is exceeded, or its spender is not here; else nil, and the spenders that
-- it counts for. One function, so that whoever has no budget makes none of those inside.
local function judge_all_budgets()
  -- Budgets. Days count from 1970-01-01, a Thursday; the day of the month is Howard Hinnant's civil_from_days.
  local function day_of_month()
    local z = day + 719468
    local doe = z % 146097
    local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
    return doy - math.floor((153 * math.floor((5 * doy + 2) / 153) + 2) / 5) + 1
  end

  local function days_in_month_left()
    local this, count = day_of_month(), 0
    local start = day
    repeat
      day, count = day + 1, count + 1
    until day_of_month() == 1
    day = start
    return count, this
  end

  -- Return what was spent from each day on, back to the first that is asked for. The names of the fields are made once for
  -- all whose budgets are judged.
  local fields, listed = {}, 0
  local function spent_from(hash, first_day)
    while listed <= day - first_day do
      local text = string.format('%d', day - listed)
      fields[3 * listed + 1], fields[3 * listed + 2] = 'posted:' .. text, 'unsettled:' .. text
      fields[3 * listed + 3] = 'held:' .. text
      listed = listed + 1
    end
    local spent, total = {}, 0
    local amounts = redis.call('HMGET', hash, unpack(fields, 1, 3 * (day - first_day + 1)))
    for back = 0, day - first_day do
      for each = 3 * back + 1, 3 * back + 3 do
        if amounts[each] then total = total + tonumber(amounts[each]) end
      end
      spent[day - back] = total
    end
    return spent
  end

  -- Return the three budgets that hold now; none where they only notify. An override, 'until (s):daily:weekly:monthly',
  -- stands in for those that it names until its time.
  local function budgets_of(daily, weekly, monthly, only_notifies, override)
    if only_notifies then return nil, nil, nil end
    if override then
      local ends, by_day, by_week, by_month = string.match(override, '^(%d+):(%d*):(%d*):(%d*)$')
      if ends and tonumber(ends) * 1000000 > now then
        if by_day ~= '' then daily = by_day end
        if by_week ~= '' then weekly = by_week end
        if by_month ~= '' then monthly = by_month end
      end
    end
    return daily, weekly, monthly
  end

  local seconds_today = math.floor(now / 1000000) - day * DAY_SECONDS
  local function judge_budgets(scope, hash, daily, weekly, monthly)
    if not (daily or weekly or monthly) then return nil end
    -- For each budget: its code behind the scope, its amount, its first day, and how many days until it begins anew.
    local budgets, weekday, first_day = {}, (day + 3) % 7, day
    if daily then table.insert(budgets, {'_daily_budget_exceeded', tonumber(daily), day, 1}) end
    if weekly then table.insert(budgets, {'_weekly_budget_exceeded', tonumber(weekly), day - weekday, 7 - weekday}) end
    if monthly then
      local left, this = days_in_month_left()
      table.insert(budgets, {'_monthly_budget_exceeded', tonumber(monthly), day - this + 1, left})
    end
    for _, budget in ipairs(budgets) do first_day = math.min(first_day, budget[3]) end
    local spent = spent_from(hash, first_day)
    for _, budget in ipairs(budgets) do
      if spent[budget[3]] + tonumber(ARGV[4]) > budget[2] then
        return refuse(scope .. budget[1], spent[budget[3]], budget[2],
          (budget[4] * DAY_SECONDS - seconds_today) * 1e6)
      end
    end
    return nil
  end
  local over = judge_budgets('key', KEYS[4], budgets_of(key[11], key[12], key[13], key[14], key[15]))
    or judge_budgets('organization', KEYS[3], budgets_of(org[11], org[12], org[13], org[16], org[17]))
  if over then return over end

  -- Budgets of members and end users, where the organization has any ('counts': 'm', 'u' or both). What is known of a
  -- spender is as old as the organization's version then was: all of them are read again when their budgets change.
  local spenders = ''
  if org[18] then
    local found = {}
    if key[5] and string.find(org[18], 'm', 1, true) then table.insert(found, {'member', 'member', key[5]}) end
    if ARGV[11] ~= '' and string.find(org[18], 'u', 1, true) then table.insert(found, {'user', 'end_user', ARGV[11]}) end
    local prefix, version = prefix_of(KEYS[1]), tonumber(redis.call('HGET', KEYS[3], 'config_version'))
    for _, each in ipairs(found) do
      local spender = each[1] .. ':' .. ARGV[2] .. '-' .. each[3]
      local known = redis.call('HMGET', prefix .. spender, 'config_version', 'daily_budget', 'weekly_budget',
        'monthly_budget', 'only_notifies', 'override')
      if not known[1] or tonumber(known[1]) < version then return {'LOAD', spender, epoch} end
      over = judge_budgets(each[2], prefix .. spender, budgets_of(known[2], known[3], known[4], known[5], known[6]))
      if over then return over end
      spenders = spenders .. (spenders == '' and '' or ' ') .. spender
    end
  end
  return nil, spenders
end

local spenders = ''
if key[11] or key[12] or key[13] or key[15] or org[11] or org[12] or org[13] or org[17] or org[18] then
  local over
  over, spenders = judge_all_budgets()
  if over then return over end
end

if available < tonumber(ARGV[4]) then return refuse('insufficient_balance', available, tonumber(ARGV[4]), 0) end

-- Everything is judged; from here on only writes. Under memory pressure the first of them fails and nothing has changed.
local deadline, admitted_at = string.format('%d', now_ms + tonumber(ARGV[5])), string.format('%d', now_ms)
local day_text = string.format('%d', day)
redis.call('HSET', KEYS[5], 'organization', ARGV[2], 'key', ARGV[3], 'amount', ARGV[4], 'day', day_text, 'cost', '0',
  'event', ARGV[10], 'admitted_at', admitted_at)
-- What is reserved of rates of tokens, where there is one that CLOSE may have to correct.
if rates[4] or rates[5] or rates[6] or rates[7] then
  redis.call('HSET', KEYS[5], 'input_tokens', ARGV[6], 'output_tokens', ARGV[7])
end
if spenders ~= '' then
  redis.call('HSET', KEYS[5], 'spenders', spenders)
  count_spenders(prefix_of(KEYS[1]), spenders, 'held', ARGV[4], day_text, true)
end
redis.call('ZADD', KEYS[6], deadline, ARGV[1])
count_hold(KEYS[3], KEYS[4], ARGV[4], day_text, true)
for place = 2, 7 do
  if rates[place] then take_rate(rates[place], now) end
end
return report_rates({'ADMITTED', day, available - tonumber(ARGV[4]), org[14] or '', now_ms, spenders})

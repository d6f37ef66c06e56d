-- ADMIT: judge one request and write its named hold, or say which limit refused it. A refusal changes nothing.
--
-- KEYS  1 epoch  2 opens  3 org  4 key  5 hold  6 deadlines  7 usage  8 tombstone
--       9 org requests rate  10 org input rate  11 org output rate  12 key requests rate  13 key input rate
--       14 key output rate
-- ARGV  1 request id  2 organization id  3 key id  4 amount (nanos)  5 lease (ms)  6 input tokens  7 output tokens
--       8 config version of the key as the gateway knows it  9 most waiting events  10 orphan event (JSON)
-- Returns {verdict, ...}:
--   {'REBUILD'}                        the shard is not built on this server, or not open yet
--   {'LOAD', 'org' | 'key', epoch}     not in Redis: load it from Postgres, publish it under this epoch and ask again
--   {'INVALID'}                        an amount that no request of ours can have
--   {'STALE'}                          the gateway's copy of the key is older than this one: read it again
--   {'REFUSED', code, figure, limit, reset (us), rates...}
--   {'ADMITTED', day, available after (nanos), '1' where the organization wants costs in usage, time of admission (ms),
--    rates...}
-- rates: for requests, input tokens, output tokens: limit, remaining, reset (us from now); -1, -1, 0 without a limit.

if not (is_amount(ARGV[4]) and is_amount(ARGV[6]) and is_amount(ARGV[7])) then return {'INVALID'} end
local now = micros_now()
if not fence_holds(KEYS[1]) then return {'REBUILD'} end
local opens = redis.call('GET', KEYS[2])
if opens and tonumber(opens) > now / 1000 then return {'REBUILD'} end

local org = redis.call('HMGET', KEYS[3], 'status', 'credit', 'limit', 'unsettled', 'held', 'open',
  'requests_per_minute', 'input_tokens_per_minute', 'output_tokens_per_minute', 'concurrent_requests',
  'daily_budget', 'weekly_budget', 'monthly_budget', 'shows_cost', 'expiries')
if not org[1] or not org[2] then return {'LOAD', 'org', redis.call('GET', KEYS[1])} end
local key = redis.call('HMGET', KEYS[4], 'status', 'config_version', 'expires_at', 'organization', 'x', 'open',
  'requests_per_minute', 'input_tokens_per_minute', 'output_tokens_per_minute', 'concurrent_requests',
  'daily_budget', 'weekly_budget', 'monthly_budget')
if not key[1] then return {'LOAD', 'key', redis.call('GET', KEYS[1])} end

local day = math.floor(now / 1000000 / DAY_SECONDS)

local wanted = {1, tonumber(ARGV[6]), tonumber(ARGV[7])}
local rates = {}
for kind = 1, 3 do
  rates[kind] = {judge_rate(KEYS[8 + kind], org[6 + kind], wanted[kind], now),
    judge_rate(KEYS[11 + kind], key[6 + kind], wanted[kind], now)}
end

local function report_rates(reply)
  for kind = 1, 3 do
    local tightest = nil
    for scope = 1, 2 do
      local rate = rates[kind][scope]
      if rate and (not tightest or rate.remaining < tightest.remaining) then tightest = rate end
    end
    if tightest then
      table.insert(reply, string.format('%.0f', tightest.limit))
      table.insert(reply, string.format('%.0f', tightest.remaining))
      table.insert(reply, string.format('%.0f', tightest.reset))
    else
      table.insert(reply, '-1')
      table.insert(reply, '-1')
      table.insert(reply, '0')
    end
  end
  return reply
end

local function refuse(code, figure, limit, reset)
  return report_rates({'REFUSED', code, string.format('%.0f', figure), string.format('%.0f', limit),
    string.format('%.0f', reset)})
end

local now_ms = math.floor(now / 1000)
-- A lot pays for nothing that is admitted from its expiry on, whenever Postgres notices it.
local available = tonumber(org[2]) - expired_credit(org[15], now_ms) + tonumber(org[3] or '0') - tonumber(org[4] or '0') - tonumber(org[5] or '0')

-- The same request again: it has its hold already.
if redis.call('EXISTS', KEYS[5]) == 1 then
  local kept = redis.call('HMGET', KEYS[5], 'day', 'admitted_at')
  return report_rates({'ADMITTED', kept[1], string.format('%.0f', available), org[14] or '', kept[2] or '0'})
end
if redis.call('EXISTS', KEYS[8]) == 1 then return refuse('request_ended', 0, 0, 0) end

if key[4] ~= ARGV[2] or key[1] ~= 'active' then return refuse('key_revoked', 0, 0, 0) end
if key[3] and tonumber(key[3]) * 1000000 <= now then return refuse('key_expired', 0, 0, 0) end
if tonumber(key[2]) > tonumber(ARGV[8]) then return {'STALE'} end
if org[1] ~= 'active' then return refuse('organization_' .. org[1], 0, 0, 0) end
if redis.call('XLEN', KEYS[7]) >= tonumber(ARGV[9]) then return refuse('settlement_behind', 0, 0, 1000000) end

local names = {'rate_limited_requests', 'rate_limited_input_tokens', 'rate_limited_output_tokens'}
for kind = 1, 3 do
  for scope = 1, 2 do
    local rate = rates[kind][scope]
    if rate and rate.refused then return refuse(names[kind], rate.remaining, rate.limit, rate.retry) end
  end
end
for _, holder in ipairs({org, key}) do
  if holder[10] and tonumber(holder[6] or '0') >= tonumber(holder[10]) then
    return refuse('rate_limited_concurrency', tonumber(holder[6]), tonumber(holder[10]), 1000000)
  end
end

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

local function spent_since(hash, first_day)
  local fields = {}
  for each = first_day, day do
    table.insert(fields, 'posted:' .. each)
    table.insert(fields, 'unsettled:' .. each)
    table.insert(fields, 'held:' .. each)
  end
  local total = 0
  for _, amount in ipairs(redis.call('HMGET', hash, unpack(fields))) do
    if amount then total = total + tonumber(amount) end
  end
  return total
end

local seconds_today = math.floor(now / 1000000) - day * DAY_SECONDS
local function judge_budgets(scope, hash, holder)
  local weekday = (day + 3) % 7
  if holder[11] then
    local spent = spent_since(hash, day)
    if spent + tonumber(ARGV[4]) > tonumber(holder[11]) then
      return refuse(scope .. '_daily_budget_exceeded', spent, tonumber(holder[11]), (DAY_SECONDS - seconds_today) * 1e6)
    end
  end
  if holder[12] then
    local spent = spent_since(hash, day - weekday)
    if spent + tonumber(ARGV[4]) > tonumber(holder[12]) then
      return refuse(scope .. '_weekly_budget_exceeded', spent, tonumber(holder[12]),
        ((7 - weekday) * DAY_SECONDS - seconds_today) * 1e6)
    end
  end
  if holder[13] then
    local left, this = days_in_month_left()
    local spent = spent_since(hash, day - this + 1)
    if spent + tonumber(ARGV[4]) > tonumber(holder[13]) then
      return refuse(scope .. '_monthly_budget_exceeded', spent, tonumber(holder[13]),
        (left * DAY_SECONDS - seconds_today) * 1e6)
    end
  end
  return nil
end
local over = judge_budgets('key', KEYS[4], key) or judge_budgets('organization', KEYS[3], org)
if over then return over end

if available < tonumber(ARGV[4]) then return refuse('insufficient_balance', available, tonumber(ARGV[4]), 0) end

-- Everything is judged; from here on only writes. Under memory pressure the first of them fails and nothing has changed.
local deadline = string.format('%.0f', now_ms + tonumber(ARGV[5]))
local admitted_at = string.format('%.0f', now_ms)
redis.call('HSET', KEYS[5], 'organization', ARGV[2], 'key', ARGV[3], 'amount', ARGV[4], 'day', day,
  'input_tokens', ARGV[6], 'output_tokens', ARGV[7], 'cost', '0', 'event', ARGV[10], 'admitted_at', admitted_at)
redis.call('ZADD', KEYS[6], deadline, ARGV[1])
count_hold(KEYS[3], KEYS[4], ARGV[4], string.format('%d', day), true)
for kind = 1, 3 do
  for scope = 1, 2 do
    local rate = rates[kind][scope]
    if rate then take_rate(rate, now) end
  end
end
local left = string.format('%.0f', available - tonumber(ARGV[4]))
return report_rates({'ADMITTED', string.format('%d', day), left, org[14] or '', admitted_at})

-- CONFIRM: after the commit in Postgres, forget what it settled. Doubled or late confirmations change nothing twice.
-- What is posted is told before what is unsettled is forgotten: no moment and no error between counts it as free.
--
-- KEYS  1 epoch  2 usage
-- ARGV  1 shard prefix  2 number of stream ids  3 number of organizations  4 number of posted days
--       5 epoch under which the entries were read: in another one a stream id may be another event's, so none is deleted
--       then for each organization: id, credit (nanos), version, expiries of its lots;
--       for each posted day: 'org' | 'key' | 'member' | 'user', id, day, posted (nanos); then the stream ids
-- Returns {'REBUILD'} or {'CONFIRMED', entries deleted}.

local epoch = standing_epoch(KEYS[1])
if not epoch then return {'REBUILD'} end
local MOST_EXACT = 9007199254740992  -- 2^53
pass_under_memory_pressure(KEYS[1] .. ':nothing')
local at = 5
for _ = 1, tonumber(ARGV[3]) do
  local org = ARGV[1] .. 'org:' .. ARGV[at + 1]
  local version = redis.call('HGET', org, 'version')
  if not version or tonumber(version) < tonumber(ARGV[at + 3]) then
    redis.call('HSET', org, 'credit', ARGV[at + 2], 'version', ARGV[at + 3], 'expiries', ARGV[at + 4])
    redis.call('HINCRBY', org, 'open', 0)
    redis.call('SADD', ARGV[1] .. 'index', 'org:' .. ARGV[at + 1])
  end
  at = at + 4
end
-- What was posted for a day only grows, so the larger amount is the newer one.
for _ = 1, tonumber(ARGV[4]) do
  local hash, field = ARGV[1] .. ARGV[at + 1] .. ':' .. ARGV[at + 2], 'posted:' .. ARGV[at + 3]
  local posted = redis.call('HGET', hash, field)
  if ARGV[at + 1] == 'member' or ARGV[at + 1] == 'user' then
    -- A spender whom Redis does not know has nothing unsettled, and is loaded with all that is posted.
    if redis.call('HEXISTS', hash, 'open') == 1 and (not posted or tonumber(posted) < tonumber(ARGV[at + 4])) then
      redis.call('HSET', hash, field, ARGV[at + 4])
    end
  elseif not posted or tonumber(posted) < tonumber(ARGV[at + 4]) then
    redis.call('HSET', hash, field, ARGV[at + 4])
    redis.call('HINCRBY', hash, 'open', 0)
    redis.call('SADD', ARGV[1] .. 'index', ARGV[at + 1] .. ':' .. ARGV[at + 2])
  end
  at = at + 4
end
if epoch ~= ARGV[5] then return {'CONFIRMED', 0} end

-- Costs of one organization, key and day are taken away at once, as far as their sum is exact here.
local sums = {}
local function take_away(organization, key, day, cost)
  count_event(ARGV[1] .. 'org:' .. organization, ARGV[1] .. 'key:' .. key, cost, day, false)
end
local deleted = 0
for _ = 1, tonumber(ARGV[2]) do
  at = at + 1
  local entry = redis.call('XRANGE', KEYS[2], ARGV[at], ARGV[at])[1]
  if entry and redis.call('XDEL', KEYS[2], ARGV[at]) == 1 then
    deleted = deleted + 1
    local value = read_entry(entry)
    if value then
      local name = value.organization .. ' ' .. value.key .. ' ' .. value.day
      local sum = sums[name] or {value.organization, value.key, value.day, 0}
      if sum[4] + tonumber(value.cost) <= MOST_EXACT then
        sum[4] = sum[4] + tonumber(value.cost)
        sums[name] = sum
      else
        take_away(value.organization, value.key, value.day, value.cost)
      end
      count_spenders(ARGV[1], value.spenders, 'unsettled', value.cost, value.day, false)
    end
  end
end
for _, sum in pairs(sums) do take_away(sum[1], sum[2], sum[3], string.format('%d', sum[4])) end
if deleted > 0 then redis.call('DECRBY', count_key(KEYS[2]), deleted) end
report_damaged_counters(KEYS[1])
return {'CONFIRMED', deleted}

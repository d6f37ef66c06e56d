-- PUBLISH SPENDER: bring one member or end user from Postgres into Redis, with its budgets and what is posted.
--
-- KEYS  1 epoch  2 spender  3 spenders of its organization, by when they were last used
-- ARGV  1 spender ('user:7-a1b2')  2 config version of its organization  3 first day to keep  4 number of config pairs
--       5 epoch that stood before this was read from Postgres  6 most spenders of an organization
--       then the pairs, then pairs of posted day and nanos
-- Returns {'REBUILD'}, {'OTHER_EPOCH'} when the shard was rebuilt since, {'FULL'} when there are as many as there may be
-- and each of those that were used least lately has something in flight, or {'PUBLISHED'}.

local LOOKED_AT = 20
if not standing_epoch(KEYS[1]) then return {'REBUILD'} end
if redis.call('GET', KEYS[1]) ~= ARGV[5] then return {'OTHER_EPOCH'} end
local prefix = prefix_of(KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 0 and redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[6]) then
  -- What is forgotten here comes back from Postgres, if it is asked for.
  local forgotten = 0
  for _, spender in ipairs(redis.call('ZRANGE', KEYS[3], 0, LOOKED_AT - 1)) do
    if tonumber(redis.call('HGET', prefix .. spender, 'open') or '0') == 0 then
      redis.call('DEL', prefix .. spender)
      redis.call('ZREM', KEYS[3], spender)
      forgotten = forgotten + 1
    end
  end
  if forgotten == 0 then return {'FULL'} end
end
redis.call('HINCRBY', KEYS[2], 'open', 0)
touch_spender(prefix, ARGV[1])
local known = redis.call('HGET', KEYS[2], 'config_version')
local at = 6 + 2 * tonumber(ARGV[4])
if not known or tonumber(known) <= tonumber(ARGV[2]) then
  redis.call('HDEL', KEYS[2], 'daily_budget', 'weekly_budget', 'monthly_budget', 'only_notifies', 'override')
  redis.call('HSET', KEYS[2], 'config_version', ARGV[2])
  for each = 7, at, 2 do redis.call('HSET', KEYS[2], ARGV[each], ARGV[each + 1]) end
end
for each = at + 1, #ARGV, 2 do
  local field = 'posted:' .. ARGV[each]
  local posted = redis.call('HGET', KEYS[2], field)
  if not posted or tonumber(posted) < tonumber(ARGV[each + 1]) then redis.call('HSET', KEYS[2], field, ARGV[each + 1]) end
end
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  local day = string.match(field, '^%a+:(%d+)$')
  if day and tonumber(day) < tonumber(ARGV[3]) then redis.call('HDEL', KEYS[2], field) end
end
return {'PUBLISHED'}

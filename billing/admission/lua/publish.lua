-- PUBLISH: bring one organization or key from Postgres into Redis. What is older than what is known changes nothing.
--
-- KEYS  1 epoch  2 org or key  3 index
-- ARGV  1 member of the index ('org:17')  2 config version  3 credit (nanos; '' for a key)  4 balance version
--       5 first day to keep  6 number of config pairs  7 epoch that stood before this was read from Postgres
--       8 expiries of its lots  then the pairs, then pairs of posted day and nanos
-- Returns {'REBUILD'}, {'OTHER_EPOCH'} when the shard was rebuilt since, or {'PUBLISHED'}.
--
-- What was read under another epoch may lack what was settled and confirmed before the rebuild, and the rebuild
-- has forgotten the version that would tell: it is read again.

if not standing_epoch(KEYS[1]) then return {'REBUILD'} end
if redis.call('GET', KEYS[1]) ~= ARGV[7] then return {'OTHER_EPOCH'} end
-- Whoever is in the index has been counted: where that is gone, somebody else has deleted it.
if redis.call('SISMEMBER', KEYS[3], ARGV[1]) == 1 and redis.call('HEXISTS', KEYS[2], 'open') == 0 then
  return report_damage(KEYS[1])
end
local LIMITS = {'requests_per_minute', 'input_tokens_per_minute', 'output_tokens_per_minute', 'concurrent_requests',
  'daily_budget', 'weekly_budget', 'monthly_budget', 'expires_at',
  'shows_cost', 'only_notifies', 'override', 'counts', 'member'}
local known = redis.call('HMGET', KEYS[2], 'config_version', 'version')
local at = 8 + 2 * tonumber(ARGV[6])
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('HINCRBY', KEYS[2], 'open', 0)
if not known[1] or tonumber(known[1]) <= tonumber(ARGV[2]) then
  redis.call('HDEL', KEYS[2], unpack(LIMITS))
  redis.call('HSET', KEYS[2], 'config_version', ARGV[2])
  for each = 9, at, 2 do redis.call('HSET', KEYS[2], ARGV[each], ARGV[each + 1]) end
end
if ARGV[3] ~= '' and (not known[2] or tonumber(known[2]) < tonumber(ARGV[4])) then
  redis.call('HSET', KEYS[2], 'credit', ARGV[3], 'version', ARGV[4], 'expiries', ARGV[8])
end
for each = at + 1, #ARGV, 2 do
  local field = 'posted:' .. ARGV[each]
  local posted = redis.call('HGET', KEYS[2], field)
  if not posted or tonumber(posted) < tonumber(ARGV[each + 1]) then redis.call('HSET', KEYS[2], field, ARGV[each + 1]) end
end
-- Forget the days that no budget can reach any more.
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  local day = string.match(field, '^%a+:(%d+)$')
  if day and tonumber(day) < tonumber(ARGV[5]) then redis.call('HDEL', KEYS[2], field) end
end
return {'PUBLISHED'}

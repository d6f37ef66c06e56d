-- REBUILD: take the shard over on this Redis process. Counters are summed anew from the holds and events that are here
-- (neither is deleted); organizations and keys are forgotten and come back from Postgres when they are asked for.
--
-- KEYS  1 epoch  2 opens  3 index  4 deadlines  5 usage
-- ARGV  1 shard prefix  2 time until admission opens (ms)  3 'force' to build again though the fence holds
-- Returns {'BUILT', epoch} or {'STANDING', epoch} when there was nothing to do.
--
-- Admission opens only after a while, in which gateways put back the holds and events that this Redis has lost.

local stands = fence_holds(KEYS[1])
local epoch = stands and redis.call('GET', KEYS[1]) or run_id() .. ':' .. string.format('%.0f', micros_now())
if stands and ARGV[3] ~= 'force' then return {'STANDING', epoch} end
redis.call('DEL', KEYS[1])
-- Deadlines here may lack what this Redis has lost: the reaper judges nobody before gateways could renew them.
if not stands then redis.call('DEL', ARGV[1] .. 'reaper') end
for _, member in ipairs(redis.call('SMEMBERS', KEYS[3])) do redis.call('DEL', ARGV[1] .. member) end
redis.call('DEL', KEYS[3])

local function remember(organization, key)
  redis.call('SADD', KEYS[3], 'org:' .. organization, 'key:' .. key)
end
for _, request_id in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  local hold = redis.call('HMGET', ARGV[1] .. 'hold:' .. request_id, 'organization', 'key', 'amount', 'day')
  if hold[1] then
    remember(hold[1], hold[2])
    count_hold(ARGV[1] .. 'org:' .. hold[1], ARGV[1] .. 'key:' .. hold[2], hold[3], hold[4], true)
  else
    redis.call('ZREM', KEYS[4], request_id)
  end
end
local last = '-'
while true do
  local entries = redis.call('XRANGE', KEYS[5], last, '+', 'COUNT', 1000)
  for _, entry in ipairs(entries) do
    local value = read_entry(entry)
    if value then
      remember(value.organization, value.key)
      count_event(ARGV[1] .. 'org:' .. value.organization, ARGV[1] .. 'key:' .. value.key, value.cost, value.day, true)
    end
    last = '(' .. entry[1]
  end
  if #entries < 1000 then break end
end
redis.call('SET', KEYS[2], string.format('%.0f', math.floor(micros_now() / 1000) + tonumber(ARGV[2])))
redis.call('SET', KEYS[1], epoch)
return {'BUILT', epoch}

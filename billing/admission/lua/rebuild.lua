-- REBUILD: take the shard over on this Redis process. Counters are summed again from the holds and events that are here
-- (neither is deleted); organizations and keys are forgotten and come back from Postgres when they are asked for.
--
-- KEYS  1 epoch  2 opens  3 index  4 deadlines  5 usage  then others that a script has stumbled over
-- ARGV  1 shard prefix  2 time until admission opens (ms)  3 'force' to build again though the fence holds, 'mend' to
--       begin a new epoch besides, so that gateways send again what is not confirmed
-- Returns {'BUILT', epoch} or {'STANDING', epoch} when there was nothing to do.
--
-- Admission opens only after a while, in which gateways put back the holds and events that this Redis has lost.
-- What is of another kind than our scripts make it was put there by somebody else, and is deleted.

local KINDS = {epoch = 'string', opens = 'string', index = 'set', deadlines = 'zset', usage = 'stream', ['usage:count'] = 'string',
  ['usage:vanished'] = 'string', reaper = 'hash',
  org = 'hash', key = 'hash', member = 'hash', user = 'hash', spenders = 'zset', hold = 'hash', orphaned = 'string', rate = 'string'}
local is_damaged = false
local function delete_if_foreign(name)
  local kind = KINDS[string.match(string.sub(name, #ARGV[1] + 1), '^usage:%a+$')]
    or KINDS[string.match(string.sub(name, #ARGV[1] + 1), '^%a+')]
  local found = redis.call('TYPE', name)['ok']
  if found ~= 'none' and found ~= kind then
    redis.call('DEL', name)
    is_damaged = true
  end
end
delete_if_foreign(KEYS[1])
local stands = ARGV[3] ~= 'mend' and standing_epoch(KEYS[1])
if stands and ARGV[3] ~= 'force' then return {'STANDING', redis.call('GET', KEYS[1])} end
for each = 2, #KEYS do delete_if_foreign(KEYS[each]) end
delete_if_foreign(ARGV[1] .. 'reaper')
delete_if_foreign(count_key(KEYS[5]))
delete_if_foreign(vanished_key(KEYS[5]))
if stands and note_vanished_events(KEYS[5]) then is_damaged = true end
local epoch = stands and not is_damaged and redis.call('GET', KEYS[1])
  or string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') .. ':' .. string.format('%.0f', micros_now())
redis.call('DEL', KEYS[1])
-- Deadlines here may lack what this Redis has lost: the reaper judges nobody before gateways could renew them.
if not stands then redis.call('DEL', ARGV[1] .. 'reaper') end
for _, member in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  if string.match(member, '^%a+:%d+$') then redis.call('DEL', ARGV[1] .. member) end
  local list = string.match(member, '^org:%d+$') and string.gsub(ARGV[1] .. member, 'org:(%d+)$', 'spenders:%1')
  if list then
    delete_if_foreign(list)
    for _, spender in ipairs(redis.call('ZRANGE', list, 0, -1)) do redis.call('DEL', ARGV[1] .. spender) end
    redis.call('DEL', list)
  end
end
redis.call('DEL', KEYS[3])

local known = {}
local function remember(organization, key)
  for _, member in ipairs({'org:' .. organization, 'key:' .. key}) do
    if not known[member] then
      known[member] = true
      redis.call('DEL', ARGV[1] .. member)
      redis.call('HSET', ARGV[1] .. member, 'open', '0')
      redis.call('SADD', KEYS[3], member)
    end
  end
end
for _, request_id in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  local name = ARGV[1] .. 'hold:' .. request_id
  delete_if_foreign(name)
  local hold = redis.call('HMGET', name, 'organization', 'key', 'amount', 'day', 'spenders')
  if is_amount(hold[1]) and is_amount(hold[2]) and is_amount(hold[3]) and is_amount(hold[4]) then
    remember(hold[1], hold[2])
    count_hold(ARGV[1] .. 'org:' .. hold[1], ARGV[1] .. 'key:' .. hold[2], hold[3], hold[4], true)
    count_spenders(ARGV[1], hold[5], 'held', hold[3], hold[4], true)
  else
    -- Its gateway puts it back.
    redis.call('ZREM', KEYS[4], request_id)
    redis.call('DEL', name)
  end
end
-- A standing shard has its stream: one that is gone tells that events are lost.
if redis.call('EXISTS', KEYS[5]) == 0 then
  redis.call('XDEL', KEYS[5], redis.call('XADD', KEYS[5], '*', 'made', '1'))
end
local last = '-'
while true do
  local entries = redis.call('XRANGE', KEYS[5], last, '+', 'COUNT', 1000)
  for _, entry in ipairs(entries) do
    local value = read_entry(entry)
    if value then
      remember(value.organization, value.key)
      count_event(ARGV[1] .. 'org:' .. value.organization, ARGV[1] .. 'key:' .. value.key, value.cost, value.day, true)
      count_spenders(ARGV[1], value.spenders, 'unsettled', value.cost, value.day, true)
    end
    last = '(' .. entry[1]
  end
  if #entries < 1000 then break end
end
redis.call('SET', count_key(KEYS[5]), redis.call('XLEN', KEYS[5]))
redis.call('SET', KEYS[2], string.format('%.0f', math.floor(micros_now() / 1000) + tonumber(ARGV[2])))
redis.call('SET', KEYS[1], epoch)
return {'BUILT', epoch}

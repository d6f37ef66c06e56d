-- STATE: what an organization or key has, holds and owes right now, for people to see. Reads only.
--
-- KEYS  1 epoch  2 org or key  3 opens
-- Returns {'REBUILD'}, {'LOAD', how long admission stays closed (ms)} or {'STATE', credit, limit, unsettled, held,
--   open, how long the shard has stood (ms)}:
--   credit without what of it has expired; 0 ms while gateways put back what this Redis has lost.

if not standing_epoch(KEYS[1]) then return {'REBUILD'} end
local value = redis.call('HMGET', KEYS[2], 'status', 'credit', 'limit', 'unsettled', 'held', 'open', 'expiries')
local now_ms = math.floor(micros_now() / 1000)
local opens = redis.call('GET', KEYS[3])
if not value[1] or not value[2] then
  return {'LOAD', string.format('%.0f', math.max(0, (tonumber(opens or '0') or 0) - now_ms))}
end
local expired = expired_credit(value[7], now_ms)
local credit = expired == 0 and value[2] or string.format('%.0f', tonumber(value[2]) - expired)
local built_ms = math.floor(tonumber(string.match(redis.call('GET', KEYS[1]), ':(%d+)$') or '0') / 1000)
local stood_ms = math.max(0, now_ms - built_ms)
if opens and tonumber(opens) > now_ms then stood_ms = 0 end
return {'STATE', credit, value[3] or '0', value[4] or '0', value[5] or '0', value[6] or '0',
  string.format('%.0f', stood_ms)}

-- ADMIT FREE: judge a request that costs nothing (counting tokens, listing models). It has a rate of its own, so it takes
-- nothing from the limits of billed requests.
--
-- KEYS  1 epoch  2 org  3 key  4 rate
-- ARGV  1 organization id  2 config version of the key as the gateway knows it  3 requests per minute
-- Returns {'REBUILD'}, {'LOAD', 'org' | 'key', epoch}, {'STALE'}, {'ADMITTED'} or {'REFUSED', code, reset (us)}.

if not standing_epoch(KEYS[1]) then return {'REBUILD'} end
local org_status = redis.call('HGET', KEYS[2], 'status')
if not org_status then return {'LOAD', 'org', redis.call('GET', KEYS[1])} end
local key = redis.call('HMGET', KEYS[3], 'status', 'config_version', 'expires_at', 'organization')
if not key[1] then return {'LOAD', 'key', redis.call('GET', KEYS[1])} end
local now = micros_now()
if key[4] ~= ARGV[1] then return {'REFUSED', 'key_revoked', '0'} end
if key[1] ~= 'active' then return {'REFUSED', 'key_' .. key[1], '0'} end
if key[3] and tonumber(key[3]) * 1000000 <= now then return {'REFUSED', 'key_expired', '0'} end
if tonumber(key[2]) > tonumber(ARGV[2]) then return {'STALE'} end
if org_status ~= 'active' then return {'REFUSED', 'organization_' .. org_status, '0'} end
local rate = judge_rate(KEYS[4], ARGV[3], 1, now)
if rate.refused then return {'REFUSED', 'rate_limited_requests', string.format('%.0f', rate.retry)} end
take_rate(rate, now)
return {'ADMITTED'}

-- REAP: close holds past their deadline, each from its last checkpoint, once. Also tells what waits in the shard.
--
-- KEYS  1 epoch  2 deadlines  3 usage  4 reaper
-- ARGV  1 shard prefix  2 most holds to close now  3 longest gap between runs (ms)  4 lease (ms)
--       5 life of a tombstone (s)
-- Returns {'REBUILD'} or {'REAPED', events waiting, holds closed, holds in flight}.
--
-- REBUILD also where somebody else has deleted the stream, entries of it, or a hold whose deadline has passed.
--
-- After an outage or a jump of the clock every deadline may seem past: a reaper whose own last run is too old waits one
-- lease before it judges, so that living gateways can renew theirs.

if not standing_epoch(KEYS[1]) then return {'REBUILD'} end
pass_under_memory_pressure(KEYS[1] .. ':nothing')
if redis.call('EXISTS', KEYS[3]) == 0 or note_vanished_events(KEYS[3]) then return report_damage(KEYS[1]) end
local now = math.floor(micros_now() / 1000)
local in_flight = redis.call('ZCARD', KEYS[2])
local waiting = redis.call('XLEN', KEYS[3])
local reaper = redis.call('HMGET', KEYS[4], 'ran_at', 'judges_from')
local last = tonumber(reaper[1] or '0')
local judges_from = tonumber(reaper[2] or '0')
if now - last > tonumber(ARGV[3]) or now < last then judges_from = now + tonumber(ARGV[4]) end
if now < last then
  -- The clock was put back: what was to end soon by the old clock ends soon by the new one.
  local latest = string.format('%.0f', now + tonumber(ARGV[4]))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. latest, '+inf')) do
    redis.call('ZADD', KEYS[2], latest, id)
  end
  local opens = redis.call('GET', ARGV[1] .. 'opens')
  if opens and tonumber(opens) > tonumber(latest) then redis.call('SET', ARGV[1] .. 'opens', latest) end
end
redis.call('HSET', KEYS[4], 'ran_at', string.format('%.0f', now), 'judges_from', string.format('%.0f', judges_from))
if now < judges_from or in_flight == 0 then return {'REAPED', waiting, 0, in_flight} end

local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])
for _, id in ipairs(expired) do
  local name = ARGV[1] .. 'hold:' .. id
  local hold = redis.call('HMGET', name, 'organization', 'key', 'amount', 'day', 'cost', 'event', 'admitted_at',
    'spenders')
  local is_whole = true
  for field = 1, 5 do is_whole = is_whole and is_amount(hold[field]) end
  if is_whole and hold[6] then
    -- Appended first: should a later step fail, the request is told of twice, and never not at all.
    append_event(KEYS[3], hold[1], hold[2], hold[5], hold[4], hold[6], hold[7] or '0', hold[8])
    redis.call('ZREM', KEYS[2], id)
    redis.call('DEL', name)
    redis.call('SET', ARGV[1] .. 'orphaned:' .. id, '1', 'EX', ARGV[5])
    local org, key = ARGV[1] .. 'org:' .. hold[1], ARGV[1] .. 'key:' .. hold[2]
    count_hold(org, key, hold[3], hold[4], false)
    count_spenders(ARGV[1], hold[8], 'held', hold[3], hold[4], false)
    count_event(org, key, hold[5], hold[4], true)
    count_spenders(ARGV[1], hold[8], 'unsettled', hold[5], hold[4], true)
  else
    -- Somebody else has deleted or changed it, and what it had reserved is not known: all is counted anew.
    redis.call('ZREM', KEYS[2], id)
    redis.call('DEL', name)
    report_damage(KEYS[1])
  end
end
report_damaged_counters(KEYS[1])
return {'REAPED', waiting + #expired, #expired, in_flight - #expired}

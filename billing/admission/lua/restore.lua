-- RESTORE: write a hold again that was lost with Redis' memory. It was admitted once, so no limit is asked. Idempotent.
--
-- KEYS  1 epoch  2 org  3 key  4 hold  5 deadlines  6 tombstone  7 index
-- ARGV  1 request id  2 organization id  3 key id  4 amount (nanos)  5 lease (ms)  6, 7 input and output tokens that it
--       had reserved  8 day  9 cost so far (nanos)  10 event as it would be if it ended now  11 time of admission (ms)
--       12 spenders that it counts for
-- Returns {'REBUILD'}, {'INVALID'}, {'ORPHANED'} or {'HELD'}.
--
-- What it had reserved of token rates was lost with it, since one script had written both. So it reserves nothing now:
-- CLOSE takes what was used, and gives nothing back that this Redis never took.

if not standing_epoch(KEYS[1]) then return {'REBUILD'} end
if not (is_amount(ARGV[4]) and is_amount(ARGV[8]) and is_amount(ARGV[9])) then return {'INVALID'} end
if redis.call('EXISTS', KEYS[6]) == 1 then return {'ORPHANED'} end
if redis.call('EXISTS', KEYS[4]) == 1 then return {'HELD'} end
pass_under_memory_pressure(KEYS[1] .. ':nothing')
local deadline = string.format('%.0f', math.floor(micros_now() / 1000) + tonumber(ARGV[5]))
redis.call('HSET', KEYS[4], 'organization', ARGV[2], 'key', ARGV[3], 'amount', ARGV[4], 'day', ARGV[8],
  'input_tokens', '0', 'output_tokens', '0', 'cost', ARGV[9], 'event', ARGV[10], 'admitted_at', ARGV[11])
-- With its deadline still there it is counted still: only the hold itself was deleted.
if ARGV[12] ~= '' then redis.call('HSET', KEYS[4], 'spenders', ARGV[12]) end
local is_new = redis.call('ZADD', KEYS[5], deadline, ARGV[1]) == 1
redis.call('SADD', KEYS[7], 'org:' .. ARGV[2], 'key:' .. ARGV[3])
if is_new then
  count_hold(KEYS[2], KEYS[3], ARGV[4], ARGV[8], true)
  count_spenders(prefix_of(KEYS[1]), ARGV[12], 'held', ARGV[4], ARGV[8], true)
end
return {'HELD'}

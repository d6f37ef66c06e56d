-- SETTLE: close a hold with the true cost and append its usage event. A failed request is a release: cost '0'.
--
-- KEYS  1 epoch  2 org  3 key  4 hold  5 deadlines  6 usage  7 tombstone  8 index
--       9 org input rate  10 org output rate  11 key input rate  12 key output rate
-- ARGV  1 request id  2 organization id  3 key id  4 cost (nanos)  5 event (JSON)  6 input tokens  7 output tokens
--       8 day to use when there is no hold  9 'release' when nothing was served  10 life of a tombstone (s)
--       11 time of admission (ms; '0' where the event says it)
-- Returns {'REBUILD'}, {'INVALID'} for an amount that no request of ours can have, or {'SETTLED', stream id, epoch}.
-- Without a hold it still appends: the hold may have been lost with Redis' memory, the usage must not be. Nor does a
-- tombstone stop it: an orphan is a provisional judgement, and settlement corrects it by the truth.

if not fence_holds(KEYS[1]) then return {'REBUILD'} end
for _, each in ipairs({4, 6, 7, 8}) do
  if not is_amount(ARGV[each]) then return {'INVALID'} end
end
pass_under_memory_pressure(KEYS[1] .. ':nothing')
local hold = redis.call('HMGET', KEYS[4], 'amount', 'day', 'input_tokens', 'output_tokens')
local day = is_amount(hold[2]) and hold[2] or ARGV[8]
-- Appended first: should a later step fail, the request is told of twice, and never not at all.
local stream_id = append_event(KEYS[6], ARGV[2], ARGV[3], ARGV[4], day, ARGV[5], ARGV[11])
if not stream_id then return report_damage(KEYS[1]) end
if hold[1] then
  local limits = {redis.call('HGET', KEYS[2], 'input_tokens_per_minute'),
    redis.call('HGET', KEYS[2], 'output_tokens_per_minute'), redis.call('HGET', KEYS[3], 'input_tokens_per_minute'),
    redis.call('HGET', KEYS[3], 'output_tokens_per_minute')}
  local now = micros_now()
  redis.call('DEL', KEYS[4])
  redis.call('ZREM', KEYS[5], ARGV[1])
  count_hold(KEYS[2], KEYS[3], kept_amount(hold[1]), day, false)
  for each = 1, 4 do
    if limits[each] then
      local limit = tonumber(limits[each])
      local reserved = math.min(tonumber(kept_amount(hold[each % 2 == 1 and 3 or 4])), limit)
      correct_rate(KEYS[8 + each], limit, tonumber(ARGV[each % 2 == 1 and 6 or 7]) - reserved, now)
    end
  end
else
  -- What is in the index is there, if only with zeroes: see PUBLISH.
  redis.call('HINCRBY', KEYS[2], 'open', 0)
  redis.call('HINCRBY', KEYS[3], 'open', 0)
  -- An admission that was given up on may still be on its way: it must find that its request has ended.
  if ARGV[9] == 'release' and redis.call('EXISTS', KEYS[7]) == 0 then
    redis.call('SET', KEYS[7], 'released', 'EX', ARGV[10])
  end
end
redis.call('SADD', KEYS[8], 'org:' .. ARGV[2], 'key:' .. ARGV[3])
count_event(KEYS[2], KEYS[3], ARGV[4], day, true)
local epoch = redis.call('GET', KEYS[1])
if counters_are_damaged then report_damage(KEYS[1]) end
return {'SETTLED', stream_id, epoch}

-- CLOSE: close a hold with the true cost and append its usage event. A failed request is a release: cost '0'.
--
-- KEYS  1 epoch  2 org  3 key  4 hold  5 deadlines  6 usage  7 tombstone  8 index
--       9 org input rate  10 org output rate  11 key input rate  12 key output rate
-- ARGV  1 request id  2 organization id  3 key id  4 cost (nanos)  5 event (JSON)  6 input tokens  7 output tokens
--       8 day to use when there is no hold  9 'release' when nothing was served  10 life of a tombstone (s)
--       11 time of admission (ms; '0' where the event says it)  12 spenders to use when there is no hold
-- Returns {'REBUILD'}, {'INVALID'} for an amount that no request of ours can have, or {'CLOSED', stream id, epoch}.
-- Without a hold it still appends: the hold may have been lost with Redis' memory, the usage must not be. Nor does a
-- tombstone stop it: an orphan is a provisional judgement, and settlement corrects it by the truth.

local epoch = standing_epoch(KEYS[1])
if not epoch then return {'REBUILD'} end
if not (is_amount(ARGV[4]) and is_amount(ARGV[6]) and is_amount(ARGV[7]) and is_amount(ARGV[8])) then
  return {'INVALID'}
end
pass_under_memory_pressure(KEYS[1] .. ':nothing')
local hold = redis.call('HMGET', KEYS[4], 'amount', 'day', 'input_tokens', 'output_tokens', 'spenders')
local day = is_amount(hold[2]) and hold[2] or ARGV[8]
-- Appended first: should a later step fail, the request is told of twice, and never not at all.
local prefix, spenders = prefix_of(KEYS[1]), hold[1] and (hold[5] or '') or ARGV[12]
local stream_id = append_event(KEYS[6], ARGV[2], ARGV[3], ARGV[4], day, ARGV[5], ARGV[11], spenders)
if not stream_id then return report_damage(KEYS[1]) end
if hold[1] then
  redis.call('DEL', KEYS[4])
  redis.call('ZREM', KEYS[5], ARGV[1])
  count_hold(KEYS[2], KEYS[3], kept_amount(hold[1]), day, false)
  count_spenders(prefix, spenders, 'held', kept_amount(hold[1]), day, false)
  -- A hold says what it has reserved of rates of tokens where there was one; a limit that is set later begins by itself.
  for scope = 1, hold[3] and 2 or 0 do
    local limits = redis.call('HMGET', KEYS[1 + scope], 'input_tokens_per_minute', 'output_tokens_per_minute')
    for kind = 1, 2 do
      if limits[kind] then
        local limit = tonumber(limits[kind])
        local reserved = math.min(tonumber(kept_amount(hold[2 + kind])), limit)
        correct_rate(KEYS[6 + 2 * scope + kind], limit, tonumber(ARGV[5 + kind]) - reserved, micros_now())
      end
    end
  end
else
  -- What is in the index is there, if only with zeroes: see PUBLISH. Whoever has a hold is in it.
  redis.call('SADD', KEYS[8], 'org:' .. ARGV[2], 'key:' .. ARGV[3])
  redis.call('HINCRBY', KEYS[2], 'open', 0)
  redis.call('HINCRBY', KEYS[3], 'open', 0)
  -- An admission that was given up on may still be on its way: it must find that its request has ended.
  if ARGV[9] == 'release' and redis.call('EXISTS', KEYS[7]) == 0 then
    redis.call('SET', KEYS[7], 'released', 'EX', ARGV[10])
  end
end
count_event(KEYS[2], KEYS[3], ARGV[4], day, true)
count_spenders(prefix, spenders, 'unsettled', ARGV[4], day, true)
report_damaged_counters(KEYS[1])
return {'CLOSED', stream_id, epoch}

-- PACE: judge a call of the management API. It has rates of its own, for the key and for its organization, and nothing
-- else is asked: an organization that is suspended still reads its documents and tops up.
--
-- KEYS  1 epoch  2 rate of the key  3 rate of the organization
-- ARGV  1 calls per minute of the key  2 calls per minute of the organization
-- Returns {'REBUILD'}, {'ADMITTED'} or {'REFUSED', limit, retry (us)}.

if not standing_epoch(KEYS[1]) then return {'REBUILD'} end
local now = micros_now()
local rates = {judge_rate(KEYS[2], ARGV[1], 1, now), judge_rate(KEYS[3], ARGV[2], 1, now)}
for scope = 1, 2 do
  if rates[scope].refused then return {'REFUSED', ARGV[scope], string.format('%.0f', rates[scope].retry)} end
end
for scope = 1, 2 do take_rate(rates[scope], now) end
return {'ADMITTED'}

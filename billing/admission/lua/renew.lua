-- RENEW: renew the holds of one gateway process in one shard, and write what is known of each (its checkpoint).
--
-- KEYS  1 epoch  2 deadlines  3 usage  then for each hold: hold, tombstone
-- ARGV  1 lease (ms)  then for each hold: request id, cost so far (nanos), event as it would be if it ended now ('' to
--       leave the checkpoint as it is)
-- Returns {'REBUILD'} or {'RENEWED', epoch, 'before' | 'through', stream id, state of each hold...}: 'ok', 'orphaned' or
-- 'missing'. Events that were appended in this epoch with a stream id before (through) the one given are settled and
-- confirmed: only a confirmation deletes entries. REBUILD also where somebody else has deleted the stream, entries of it, or deadlines.
-- A checkpoint whose cost is no amount is left out: the one before it stays.

if not standing_epoch(KEYS[1]) then return {'REBUILD'} end
pass_under_memory_pressure(KEYS[1] .. ':nothing')
local deadline = string.format('%.0f', math.floor(micros_now() / 1000) + tonumber(ARGV[1]))
if redis.call('EXISTS', KEYS[3]) == 0 or note_vanished_events(KEYS[3]) then return report_damage(KEYS[1]) end
local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)
local bound, settled = 'before', '0-0'
if first[1] then
  settled = first[1][1]
else
  bound = 'through'
  local stream = redis.call('XINFO', 'STREAM', KEYS[3])
  for each = 1, #stream, 2 do
    if stream[each] == 'last-generated-id' then settled = stream[each + 1] end
  end
end
local is_damaged = false
local reply = {'RENEWED', redis.call('GET', KEYS[1]), bound, settled}
for each = 0, (#KEYS - 3) / 2 - 1 do
  local hold, tombstone = KEYS[4 + each * 2], KEYS[5 + each * 2]
  local id, cost, event = ARGV[2 + each * 3], ARGV[3 + each * 3], ARGV[4 + each * 3]
  if redis.call('EXISTS', hold) == 1 then
    if redis.call('ZADD', KEYS[2], deadline, id) == 1 then is_damaged = true end
    if event ~= '' and is_amount(cost) then redis.call('HSET', hold, 'cost', cost, 'event', event, 'checkpoint', '1') end
    table.insert(reply, 'ok')
  elseif redis.call('EXISTS', tombstone) == 1 then
    table.insert(reply, 'orphaned')
  else
    table.insert(reply, 'missing')
  end
end
-- A hold without a deadline is counted by no rebuild: now that it has one again, the next counts it.
if is_damaged then return report_damage(KEYS[1]) end
return reply

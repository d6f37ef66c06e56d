-- CONFIRM: after the commit in Postgres, forget what it settled. Doubled or late confirmations change nothing twice.
-- What is posted is told before what is unsettled is forgotten: no moment and no error between counts it as free.
--
-- KEYS  1 epoch  2 usage
-- ARGV  1 shard prefix  2 number of stream ids  3 number of organizations  4 number of posted days
--       5 epoch under which the entries were read: in another one a stream id may be another event's, so none is deleted
--       then for each organization: id, credit (nanos), version, expiries of its lots;
--       for each posted day: 'org' | 'key', id, day, posted (nanos); then the stream ids
-- Returns {'REBUILD'} or {'CONFIRMED', entries deleted}.

if not fence_holds(KEYS[1]) then return {'REBUILD'} end
pass_under_memory_pressure(KEYS[1] .. ':nothing')
local at = 5
for _ = 1, tonumber(ARGV[3]) do
  local org = ARGV[1] .. 'org:' .. ARGV[at + 1]
  local version = redis.call('HGET', org, 'version')
  if not version or tonumber(version) < tonumber(ARGV[at + 3]) then
    redis.call('HSET', org, 'credit', ARGV[at + 2], 'version', ARGV[at + 3], 'expiries', ARGV[at + 4])
    redis.call('HINCRBY', org, 'open', 0)
    redis.call('SADD', ARGV[1] .. 'index', 'org:' .. ARGV[at + 1])
  end
  at = at + 4
end
-- What was posted for a day only grows, so the larger figure is the newer one.
for _ = 1, tonumber(ARGV[4]) do
  local hash, field = ARGV[1] .. ARGV[at + 1] .. ':' .. ARGV[at + 2], 'posted:' .. ARGV[at + 3]
  local posted = redis.call('HGET', hash, field)
  if not posted or tonumber(posted) < tonumber(ARGV[at + 4]) then
    redis.call('HSET', hash, field, ARGV[at + 4])
    redis.call('HINCRBY', hash, 'open', 0)
    redis.call('SADD', ARGV[1] .. 'index', ARGV[at + 1] .. ':' .. ARGV[at + 2])
  end
  at = at + 4
end
local deleted = 0
if redis.call('GET', KEYS[1]) ~= ARGV[5] then return {'CONFIRMED', deleted} end
for _ = 1, tonumber(ARGV[2]) do
  at = at + 1
  local entry = redis.call('XRANGE', KEYS[2], ARGV[at], ARGV[at])[1]
  if entry and redis.call('XDEL', KEYS[2], ARGV[at]) == 1 then
    local value = read_entry(entry)
    if value then
      count_event(ARGV[1] .. 'org:' .. value.organization, ARGV[1] .. 'key:' .. value.key, value.cost, value.day, false)
    end
    deleted = deleted + 1
  end
end
if counters_are_damaged then report_damage(KEYS[1]) end
return {'CONFIRMED', deleted}

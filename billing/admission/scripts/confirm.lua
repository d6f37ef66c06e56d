-- CONFIRM: after the commit in Postgres, forget what it settled. Doubled or late confirmations change nothing twice.
--
-- KEYS  1 epoch  2 usage
-- ARGV  1 shard prefix  2 number of stream ids  3 number of organizations  4 number of posted days
--       then the stream ids; for each organization: id, credit (nanos), version;
--       for each posted day: 'org' | 'key', id, day, posted (nanos)
-- Returns {'REBUILD'} or {'CONFIRMED', entries deleted}.

if not fence_holds(KEYS[1]) then return {'REBUILD'} end
pass_under_memory_pressure(KEYS[1] .. ':nothing')
local at, deleted = 4, 0
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
for _ = 1, tonumber(ARGV[3]) do
  local org = ARGV[1] .. 'org:' .. ARGV[at + 1]
  local version = redis.call('HGET', org, 'version')
  if not version or tonumber(version) < tonumber(ARGV[at + 3]) then
    redis.call('HSET', org, 'credit', ARGV[at + 2], 'version', ARGV[at + 3])
    redis.call('SADD', ARGV[1] .. 'index', 'org:' .. ARGV[at + 1])
  end
  at = at + 3
end
-- What was posted for a day only grows, so the larger figure is the newer one.
for _ = 1, tonumber(ARGV[4]) do
  local hash, field = ARGV[1] .. ARGV[at + 1] .. ':' .. ARGV[at + 2], 'posted:' .. ARGV[at + 3]
  local posted = redis.call('HGET', hash, field)
  if not posted or tonumber(posted) < tonumber(ARGV[at + 4]) then
    redis.call('HSET', hash, field, ARGV[at + 4])
    redis.call('SADD', ARGV[1] .. 'index', ARGV[at + 1] .. ':' .. ARGV[at + 2])
  end
  at = at + 4
end
return {'CONFIRMED', deleted}

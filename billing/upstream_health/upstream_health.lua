-- UPSTREAM HEALTH: what gateways tell each other of upstreams: open breakers and suspended credentials, until when.
--
-- KEYS  1 the findings (a hash: "upstream|subject" -> end, ms)
-- ARGV  for each finding: upstream, subject, how long it lasts (ms; 0: it is over)
-- Returns for each that lasts: upstream, subject, ms left.

local time = redis.call('TIME')
local now = math.floor((tonumber(time[1]) * 1000000 + tonumber(time[2])) / 1000)
for each = 1, #ARGV, 3 do
  local name = ARGV[each] .. '|' .. ARGV[each + 1]
  if ARGV[each + 2] == '0' then
    redis.call('HDEL', KEYS[1], name)
  else
    redis.call('HSET', KEYS[1], name, string.format('%.0f', now + tonumber(ARGV[each + 2])))
  end
end
local reply = {}
local all = redis.call('HGETALL', KEYS[1])
for each = 1, #all, 2 do
  local left = tonumber(all[each + 1]) - now
  if left <= 0 then
    redis.call('HDEL', KEYS[1], all[each])
  else
    local upstream, subject = string.match(all[each], '^(.-)|(.*)$')
    table.insert(reply, upstream)
    table.insert(reply, subject)
    table.insert(reply, string.format('%.0f', left))
  end
end
return reply

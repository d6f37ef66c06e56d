-- Shared by all scripts: billing/admission/scripts.py puts in front of each the paragraphs that it uses. A paragraph ends
-- with an empty line, and uses only those above it.
--
-- Amounts are nano-dollars. They travel as strings and are added with HINCRBY, which is exact to 2^63; Lua's own numbers
-- are exact to 2^53 only, so they are compared, never written back.

local DAY_SECONDS = 86400
local MINUTE_MICROS = 60000000

-- Return the epoch of a shard that was built on the very Redis process that now runs this script, or nothing. The epoch
-- is that process' run_id and the time of the build: a Redis that was emptied is the same process, but its shards are
-- rebuilt. INFO is searched for the run_id that is expected, which costs a tenth of taking the one out that is there.
local function standing_epoch(epoch_key)
  local epoch = redis.call('GET', epoch_key)
  local run_id = epoch and string.match(epoch, '^(%w+):')
  return run_id and string.find(redis.call('INFO', 'server'), 'run_id:' .. run_id .. '\r', 1, true) and epoch
end

-- True for a whole amount, count or day that lies within what any of ours can be. Nothing else is ever written.
local function is_amount(text)
  return text and #text <= 18 and string.match(text, '^%d+$') ~= nil
end

-- Return an amount as it was kept, '0' for what nobody of ours has written there.
local function kept_amount(text)
  return is_amount(text) and text or '0'
end

-- Say that the shard's state was changed by somebody else: it is to be rebuilt, and gateways to send all again.
local function report_damage(epoch_key)
  redis.call('DEL', epoch_key)
  return {'REBUILD'}
end

-- Under memory pressure Redis refuses the first write of a script, unless that write only deletes; after it, all pass.
-- What closes or keeps alive an admitted request must pass, so it calls this first. `nothing` is a key that is never set.
local function pass_under_memory_pressure(nothing)
  redis.call('DEL', nothing)
end

local function micros_now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function negative(amount)
  if amount == '0' then return '0' end
  return '-' .. amount
end

local function add(hash, field, amount)
  if amount ~= '0' and amount ~= '-0' then return redis.call('HINCRBY', hash, field, amount) end
  return 0
end

-- Whose counter fell below zero: somebody else has changed or deleted it, and all is to be counted anew. They are
-- deleted, since a rebuild knows only what is in the index, and what is not loaded is not in it.
local damaged = {}
local function note_counter(value, org, key)
  if value < 0 then damaged[#damaged + 1], damaged[#damaged + 2] = org, key end
end
local function report_damaged_counters(epoch_key)
  for _, name in ipairs(damaged) do redis.call('DEL', name) end
  if damaged[1] then report_damage(epoch_key) end
end

-- Spenders are members ('member:7-12': organization and user) and end users ('user:7-a1b2': organization and a digest),
-- whom some organizations have budgets for. Each has a hash; 'spenders:<organization>' lists them by when they were used.
-- Nobody's counters are lost with one that expires: it is loaded from Postgres when its spender comes back.
local SPENDER_SECONDS = 259200
local function prefix_of(epoch_key) return string.sub(epoch_key, 1, -6) end
local function touch_spender(prefix, spender)
  local list = prefix .. 'spenders:' .. string.match(spender, ':(%d+)-')
  redis.call('ZADD', list, redis.call('TIME')[1], spender)
  redis.call('EXPIRE', list, SPENDER_SECONDS)
  redis.call('EXPIRE', prefix .. spender, SPENDER_SECONDS)
end

-- Add `amount` to what spenders have ('held' or 'unsettled') on a day, or take it away. `names` are those that a hold or
-- a usage event names: 'member:7-12 user:7-a1b2', or nothing. 'open' counts the holds and events that are in these sums;
-- a spender without any may be forgotten.
local function count_spenders(prefix, names, what, amount, day, opening)
  if not names or names == '' then return end
  for scope, id in string.gmatch(names, '(%a+):(%d+%-%w+)') do
    local spender, hash = scope .. ':' .. id, prefix .. scope .. ':' .. id
    if scope ~= 'member' and scope ~= 'user' then
      -- No script of ours has written this.
    elseif opening then
      add(hash, what .. ':' .. day, amount)
      redis.call('HINCRBY', hash, 'open', 1)
      touch_spender(prefix, spender)
    elseif redis.call('EXISTS', hash) == 1 then
      if add(hash, what .. ':' .. day, negative(amount)) < 0 then redis.call('HDEL', hash, what .. ':' .. day) end
      if redis.call('HINCRBY', hash, 'open', -1) < 0 then redis.call('HSET', hash, 'open', '0') end
    end
  end
end

-- Add what a hold reserves (sign '') or give it back (sign '-') to the counters of its organization and key.
local function count_hold(org, key, amount, day, opening)
  local signed, one = amount, '1'
  if not opening then signed, one = negative(amount), '-1' end
  note_counter(add(org, 'held', signed), org, key)
  add(org, 'held:' .. day, signed)
  add(key, 'held:' .. day, signed)
  note_counter(redis.call('HINCRBY', org, 'open', one), org, key)
  note_counter(redis.call('HINCRBY', key, 'open', one), org, key)
end

-- Add the cost of a waiting usage event (or take it away, once it is settled).
local function count_event(org, key, cost, day, opening)
  local signed = cost
  if not opening then signed = negative(cost) end
  note_counter(add(org, 'unsettled', signed), org, key)
  add(org, 'unsettled:' .. day, signed)
  add(key, 'unsettled:' .. day, signed)
end

-- Beside a stream: how many entries our scripts have left in it; and how many vanished lately, for people to see.
local function count_key(stream) return stream .. ':count' end
local function vanished_key(stream) return stream .. ':vanished' end
local VANISHED_SECONDS = 604800

-- Append a usage event. Returns its stream id, or false where the stream is gone, which a standing shard always has:
-- the events that were in it are lost.
local function append_event(stream, organization, key_id, cost, day, event, admitted_at, spenders)
  local stream_id
  if spenders and spenders ~= '' then
    stream_id = redis.call('XADD', stream, 'NOMKSTREAM', '*', 'organization', organization, 'key', key_id, 'cost', cost,
      'day', day, 'event', event, 'admitted_at', admitted_at, 'spenders', spenders)
  else
    stream_id = redis.call('XADD', stream, 'NOMKSTREAM', '*', 'organization', organization, 'key', key_id, 'cost', cost,
      'day', day, 'event', event, 'admitted_at', admitted_at)
  end
  if stream_id then redis.call('INCR', count_key(stream)) end
  return stream_id
end

-- Return true where somebody else has deleted entries (XTRIM, XDEL): the stream has fewer than our scripts have left in
-- it. Only a confirmation may delete, for what is gone looks settled to gateways. Whatever others appended is counted.
local function note_vanished_events(stream)
  local there = redis.call('XLEN', stream)
  local gone = (tonumber(redis.call('GET', count_key(stream)) or '') or there) - there
  if gone == 0 then return false end
  redis.call('SET', count_key(stream), there)
  if gone < 0 then return false end
  local before = tonumber(redis.call('GET', vanished_key(stream)) or '') or 0
  redis.call('SET', vanished_key(stream), string.format('%.0f', before + gone), 'EX', VANISHED_SECONDS)
  return true
end

-- Return how much of an organization's credit has expired by `now_ms`. `expiries` lists lots that end, the first first:
-- "ms:nanos ms:nanos".
local function expired_credit(expiries, now_ms)
  if not expiries or tonumber(string.match(expiries, '^%d+') or now_ms + 1) > now_ms then return 0 end
  local expired = 0
  for at, nanos in string.gmatch(expiries, '(%d+):(%d+)') do
    if tonumber(at) <= now_ms then expired = expired + tonumber(nanos) end
  end
  return expired
end

-- Return the theoretical arrival time of a rate (GCRA). One that lies further ahead than any can was written before the
-- clock was put back; it says nothing, and believed it would lock its client out until the clock is there again.
local function arrival_time(rate_key, now)
  local tat = tonumber(redis.call('GET', rate_key) or '0') or 0
  if tat < now or tat > now + MINUTE_MICROS + 1 then return now end
  return tat
end

-- GCRA: judge `wanted` units of a rate per minute at `now` (us). More units than the limit take the whole of it.
local function judge_rate(rate_key, limit, wanted, now)
  limit = tonumber(limit)
  wanted = math.min(wanted, limit)
  local interval = MINUTE_MICROS / limit
  local tat = arrival_time(rate_key, now)
  local after = math.ceil(tat + wanted * interval)
  local refused = after > now + MINUTE_MICROS + 1
  local level = refused and tat or after
  return {
    key = rate_key, after = after, refused = refused, limit = limit,
    remaining = math.max(0, math.floor((now + MINUTE_MICROS - level) / interval)),
    reset = level - now,
    retry = after - now - MINUTE_MICROS,
  }
end

local function take_rate(rate, now)
  redis.call('SET', rate.key, string.format('%d', rate.after), 'PX', math.ceil((rate.after - now) / 1000) + 1000)
end

-- Return the fields of a stream entry, or nil for one that no script of ours has written: it was never counted.
local function read_entry(entry)
  local value = {}
  for each = 1, #entry[2], 2 do value[entry[2][each]] = entry[2][each + 1] end
  for _, name in ipairs({'organization', 'key', 'cost', 'day'}) do
    if not is_amount(value[name]) then return nil end
  end
  return value
end

-- Give back (amount < 0) or take more (amount > 0) of a token rate whose reservation turned out wrong.
local function correct_rate(rate_key, limit, amount, now)
  if not limit or amount == 0 then return end
  local tat = arrival_time(rate_key, now)
  -- More than a minute is never owed, so that a time further ahead can only come from another clock.
  tat = math.min(tat + math.floor(amount * MINUTE_MICROS / tonumber(limit)), now + MINUTE_MICROS)
  if tat <= now then
    redis.call('DEL', rate_key)
  else
    redis.call('SET', rate_key, string.format('%d', tat), 'PX', math.ceil((tat - now) / 1000) + 1000)
  end
end

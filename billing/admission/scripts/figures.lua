-- FIGURES: what an organization or key has, holds and owes right now, for people to see. Reads only.
--
-- KEYS  1 epoch  2 org or key
-- Returns {'REBUILD'}, {'LOAD'} or {'FIGURES', credit, limit, unsettled, held, open}.

if not fence_holds(KEYS[1]) then return {'REBUILD'} end
local value = redis.call('HMGET', KEYS[2], 'status', 'credit', 'limit', 'unsettled', 'held', 'open')
if not value[1] or not value[2] then return {'LOAD'} end
return {'FIGURES', value[2], value[3] or '0', value[4] or '0', value[5] or '0', value[6] or '0'}

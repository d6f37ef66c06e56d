-- CLOCK: the time by which everything is admitted.
--
-- KEYS  1 any key of the server that is asked
-- Returns {ms since 1970}.

return {string.format('%.0f', math.floor(micros_now() / 1000))}

-- Takes a ticket: whoever comes with it next finds none. Returns what it stands for, or nil.
-- KEYS: ticket
return redis.call('GETDEL', KEYS[1])

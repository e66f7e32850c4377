-- Removes a dead letter for good. Returns 1, or 0 if there is none.
-- KEYS: dead letters, their index, their counts
-- ARGV: command id
return remove_letter(KEYS[1], KEYS[2], KEYS[3], ARGV[1]) and 1 or 0

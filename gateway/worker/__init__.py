"""The worker: reads commands off the log, runs their handlers and commits what came of them.

`handlers` is what users write against; `loading` finds what they wrote. `consumer` holds the
process together, `holdings` decides which partitions it reads, `partitions` keeps the order of
keys, and `attempts` carries one command from its entry to its outcome.
"""

"""The log: Redis or Valkey Streams. The only package that imports `redis`.

`embedded` runs a server when nobody else does, `client` connects to one and says what is wrong.
"""

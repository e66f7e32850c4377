"""How browsers are reached: WebSocket and Server-Sent Events.

Each has two implementations behind one interface. Detached from the ASGI server, a connection is
written to directly, with no task and a few kilobytes of its own; plain ASGI works on any server.
"""

"""One module a Lua script: `make_call` says what it is given, `read_reply` what it has answered. Pure.

What a script does, and what holds afterwards, stands in its header in `lua/`. A call is carried by one of two
transports: client.py for the gateway, blocking.py for everybody else.
"""

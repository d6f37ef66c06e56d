"""The protocols spoken with clients and upstreams: pure state machines, bytes in and bytes out.

Nothing here imports Django, Redis, an HTTP client or asyncio. Every error derives from `errors.ProtocolError`.
"""

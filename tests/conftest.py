"""What all tests share."""

import asyncio


pytest_plugins = ("rig.fixtures",)  # real servers: several folders share one of each version

# pytest-asyncio 1.x lets the first synchronous test make an event loop that nobody closes; with warnings as errors an
# arbitrary later test pays for it. An explicit "none" keeps the policy from making one.
asyncio.set_event_loop(None)

"""midinet's hub with any of its options.

Besides those of `PortServer` there are `portno`, `cert` and `key` (files: TLS with them), `max_descriptors`
(what the system allows this process) and `uvloop` (whether it runs on that).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from midinet import PortServer
from midinet.net.tls import tls_server_context

from . import process


async def main(
    *,
    portno: int = 0,
    cert: str | None = None,
    key: str | None = None,
    max_descriptors: int | None = None,
    host: str = "127.0.0.1",
    **options: Any,
) -> None:
    if max_descriptors is not None:
        import resource  # Not on Windows.

        resource.setrlimit(resource.RLIMIT_NOFILE, (max_descriptors, max_descriptors))
    if cert is not None and key is not None:
        options["ssl"] = tls_server_context(cert, key)
    async with PortServer(host, portno, relay=True, **options) as server:
        process.ready(server.addresses[0][1])
        await server.wait_closed()


_, options = process.begin_with_options("relay")
# What it has to say about the peers that are let go would be in the way of the table.
logging.getLogger("midinet").addHandler(logging.NullHandler())
new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
if options.pop("uvloop", False):
    import uvloop

    new_loop = uvloop.new_event_loop
with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main(**options))

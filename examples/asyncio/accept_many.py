"""Look after many clients, each by its own port in its own task.

python accept_many.py [host:port]
"""

import asyncio
import sys
from contextlib import suppress

from midinet import ConnectionLost, PortServer, SocketPort, parse_address


async def look_after(client: SocketPort) -> None:
    print(f"{client.name} connected", flush=True)
    # One client's broken connection would otherwise end the whole task group.
    with suppress(ConnectionLost):
        async for message in client:
            print(f"{client.name} sent {message}", flush=True)
    print(f"{client.name} disconnected", flush=True)


async def main(host: str, portno: int) -> None:
    async with PortServer(host, portno) as server, asyncio.TaskGroup() as tasks:
        while True:
            tasks.create_task(look_after(await server.accept()))


with suppress(KeyboardInterrupt):
    asyncio.run(main(*parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")))

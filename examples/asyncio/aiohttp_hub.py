"""A hub inside a web program, with a page that shows what is held and plays notes.

python aiohttp_hub.py [host:port] [port number of the page]

    curl localhost:8000/held
    curl localhost:8000/play --data note=60
"""

import asyncio
import sys
from collections.abc import AsyncIterator

from aiohttp import web
from mido import Message

from midinet import PortServer, parse_address

host, portno = parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")
web_portno = int(sys.argv[2]) if sys.argv[2:] else 8000

HUB = web.AppKey("HUB", PortServer)
HELD = web.AppKey("HELD", set[int])

# Seconds that a note from the web lasts.
LENGTH_S = 0.5

PAGE = """<!doctype html>
<title>midinet</title>
<p>Held: <b id="held"></b></p>
<script>
for (let note = 60; note <= 72; note++) {
  const key = document.createElement("button")
  key.textContent = note
  key.onclick = () => fetch("play", {method: "POST", body: new URLSearchParams({note})})
  document.body.append(key)
}
setInterval(async () => {
  document.getElementById("held").textContent = (await (await fetch("held")).json()).held.join(" ")
}, 200)
</script>
"""


async def run_hub(app: web.Application) -> AsyncIterator[None]:
    """Open the hub before the first request and close it after the last, which lets go of every note."""
    async with PortServer(host, portno, relay=True, snapshot=True) as hub:
        app[HUB], app[HELD] = hub, set()
        following_task = asyncio.create_task(follow(hub, app[HELD]))
        yield
    # It ends when a closed hub has given what there was to read.
    await following_task


async def follow(hub: PortServer, held: set[int]) -> None:
    async for message in hub:
        take_down(message, held)


def take_down(message: Message, held: set[int]) -> None:
    if message.type == "note_on" and message.velocity > 0:
        held.add(message.note)
    elif message.type in ("note_on", "note_off"):
        held.discard(message.note)


async def show_page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def tell_held(request: web.Request) -> web.Response:
    return web.json_response({"held": sorted(request.app[HELD])})


async def play(request: web.Request) -> web.Response:
    try:
        note = int((await request.post())["note"])
        start, end = Message("note_on", note=note), Message("note_off", note=note)
    except (KeyError, TypeError, ValueError):
        raise web.HTTPBadRequest(text="note is a number from 0 to 127\n") from None
    await sound(start, request.app)
    try:
        await asyncio.sleep(LENGTH_S)
    finally:
        await sound(end, request.app)
    return web.Response(status=204)


async def sound(message: Message, app: web.Application) -> None:
    # A hub does not hear what it sends itself.
    await app[HUB].send(message)
    take_down(message, app[HELD])


app = web.Application()
app.cleanup_ctx.append(run_hub)
app.add_routes([web.get("/", show_page), web.get("/held", tell_held), web.post("/play", play)])
web.run_app(app, host="localhost", port=web_portno)

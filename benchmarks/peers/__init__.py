"""The servers that are measured, each a program of its own that `benchmarks.servers` starts.

    command           another program: `midinet serve`, a message broker
    midinet_hub       midinet's hub: PortServer(relay=True), with any of its options; on uvloop as well
    midinet_loop      midinet with a person's code around it: async for, send
    midinet_blocking  midinet.sync: accept, for, send
    mido_sockets      mido.sockets, as its documentation does it: accept, iter_pending, send, sleep
    asyncio_streams   what a competent person writes without midinet: asyncio streams and mido's Parser;
                      on uvloop as well
    websockets_broadcast
                      websockets' broadcast
    nats_joint        servers that are one through NATS, with nats-py and nothing else
    bare_sockets      sockets alone, which look at no byte: what the system and the load cost by themselves

What a server does with a message is its role: `echo` sends it back to the client that it came from, `relay`
sends it to all others. midinet_loop sends it to all clients, which is an echo where there is one client.
"""

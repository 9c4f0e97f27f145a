"""Who hears what. No asyncio, no sockets; time is an argument."""

"""Sockets: asyncio.Protocol and nothing cleverer."""

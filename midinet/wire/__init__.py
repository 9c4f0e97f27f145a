"""Bytes, frames and Messages. No asyncio, no sockets, no clock."""

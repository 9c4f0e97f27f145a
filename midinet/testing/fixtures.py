"""midinet's pytest plugin, wherever midinet is installed: `midinet_pair` and `midinet_async_pair`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import ModuleType

import pytest

from .. import sync
from ..net.port import SocketPort
from . import pair


@pytest.fixture
def midinet_pair() -> Iterator[tuple[sync.SocketPort, sync.SocketPort]]:
    """Two blocking ports that are connected to each other, without sockets: see midinet.testing."""
    with pair() as ports:
        yield ports


async def _open_async_pair() -> AsyncIterator[tuple[SocketPort, SocketPort]]:
    """Two async ports that are connected to each other, without sockets: see midinet.testing."""
    async with pair() as ports:
        yield ports


def _explain() -> None:
    """Two async ports that are connected to each other, without sockets. This needs pytest-asyncio."""
    pytest.fail(
        "midinet_async_pair needs pytest-asyncio: pip install pytest-asyncio. Without it, "
        "`async with midinet.testing.pair() as (ours, theirs)` in the test does the same",
        pytrace=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    # Only now is it known who can run it. pytest looks for fixtures in modules and classes.
    fixtures = ModuleType("midinet async fixtures")
    if config.pluginmanager.hasplugin("asyncio"):
        import pytest_asyncio

        vars(fixtures)["midinet_async_pair"] = pytest_asyncio.fixture(_open_async_pair)
    else:
        vars(fixtures)["midinet_async_pair"] = pytest.fixture(_explain)
    config.pluginmanager.register(fixtures, fixtures.__name__)

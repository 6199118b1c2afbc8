"""The asyncio driver: `await` around the sans-IO core. The public names are in `burstwire` itself."""

from __future__ import annotations

from burstwire.aio.channel import Channel, ChannelClosed
from burstwire.aio.connection import Connection
from burstwire.aio.endpoint import Endpoint, bind
from burstwire.aio.stream import Stream

__all__ = ["Channel", "ChannelClosed", "Connection", "Endpoint", "Stream", "bind"]

"""What lone packets carry besides stream data: how each thing is written, and what its arrival or loss means.

An *item* is a tuple whose first element is a frame type (or `PROBE`, or `PAIR`). A control frame waits as an item in
`Connection.control` and is written with the values of the moment in which it leaves; a record of what was sent keeps
the items, so that a lost one is asked for again if it still matters, with the values of then (RFC 9000 §13.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from burstwire.proto.mtu import PAIR, PROBE
from burstwire.wire import frames as f

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection

__all__ = ["Item", "acked", "encode", "lost"]

Item = tuple[Any, ...]


def acked(connection: Connection, item: Item, now: float) -> None:
    """An item of a lone packet arrived."""
    kind = item[0]
    if kind == f.STREAM:
        item[1].on_acked(item[2], item[3], item[4])
    elif kind == PROBE:
        if connection.pmtu.acked(item[1], now):
            connection.set_mtu()
    elif kind == PAIR:
        if connection.pmtu.pair_acked(now):
            connection.set_mtu()
    elif kind == f.RESET_STREAM:
        stream = connection.streams.open.get(item[1])
        if stream is not None:
            stream.sending.reset_acked = True
            connection.streams.retire(stream)


def lost(connection: Connection, item: Item, now: float) -> None:
    """An item of a lone packet was lost: ask for what still matters."""
    kind = item[0]
    if kind == f.STREAM:
        half = item[1]
        half.on_lost(item[2], item[3], item[4])
        connection.wants_to_send(half)
    elif kind in (f.DATAGRAM, f.PING, PAIR):
        return
    elif kind == PROBE:
        connection.pmtu.lost(item[1], now)
    elif kind == f.STREAMS_BLOCKED_BIDI:
        if connection.streams.waiting:
            connection.ask(item)
    elif len(item) == 1 or item[1] in connection.streams.open:
        connection.ask(item)


def encode(connection: Connection, item: Item, now: float) -> bytes:
    """A control frame with the values of this moment; b"" when it has become pointless."""
    kind = item[0]
    streams, flow = connection.streams, connection.flow
    if kind == f.MAX_DATA:
        return f.encode_max_data(flow.renew(now))
    if kind == f.MAX_STREAMS_BIDI:
        return f.encode_max_streams(streams.local_limit)
    if kind == f.CONFIRM:
        return f.encode_confirm()
    if kind == f.ACK_FREQUENCY:
        return connection.outbound.ack_frequency()
    if kind == f.PING:
        return f.encode_ping()
    if kind == f.STREAMS_BLOCKED_BIDI:
        return f.encode_streams_blocked(item[1]) if streams.waiting else b""
    if kind == f.DATA_BLOCKED:
        return f.encode_data_blocked(flow.peer_limit)
    stream = streams.open.get(item[1])
    if stream is None:
        return b""
    if kind == f.MAX_STREAM_DATA:
        return f.encode_max_stream_data(stream.id, flow.renew_stream(stream, now))
    if kind == f.RESET_STREAM:
        return f.encode_reset_stream(stream.id, stream.sending.reset_code or 0, stream.sending.sent)
    if kind == f.STOP_SENDING:
        return f.encode_stop_sending(stream.id, stream.receiving.stop_code or 0)
    if kind == f.STREAM_DATA_BLOCKED:
        return f.encode_stream_data_blocked(stream.id, stream.sending.max_data)
    raise RuntimeError(f"no such control frame: {item!r}")

"""What is cancelled at every suspension: each scenario runs calls in `cut`, and then checks what they promise.

A scenario gets a connection between two endpoints (`Link`), or two endpoints, and `limit`: nothing, or a timeout that
never comes, for a wait within a timeout is another piece of code.
"""

from __future__ import annotations

from cancel_connecting import bind_by_name, connect, connect_by_name, connect_by_the_second_address, incoming
from cancel_ends import close, close_endpoint, close_endpoint_of_a_silent_peer, leave_everything, wait_closed
from cancel_ground import Scenario
from cancel_messages import iterate_messages, recv, recv_datagram, recv_many, send, send_many, two_receivers
from cancel_streams import (
    finish,
    incoming_streams,
    iterate_stream,
    leave_stream,
    leave_stream_behind_a_writer,
    open_stream,
    read,
    readinto,
    write,
    write_and_reset,
)

__all__ = ["ENDING", "LINKED", "UNLINKED"]

LINKED: dict[str, list[Scenario]] = {
    "messages and datagrams": [send, send_many, recv, recv_many, iterate_messages, recv_datagram, two_receivers],
    "streams": [write, write_and_reset, finish, read, readinto, iterate_stream, leave_stream,
                leave_stream_behind_a_writer],
    "opening streams and accepting them": [open_stream, incoming_streams],
}  # fmt: skip
"""With a connection that still works afterwards."""

ENDING: dict[str, list[Scenario]] = {
    "closing and leaving": [close, close_endpoint, close_endpoint_of_a_silent_peer, wait_closed, leave_everything],
}
"""With a connection."""

UNLINKED: dict[str, list[Scenario]] = {
    "binding, connecting and accepting": [bind_by_name, connect, connect_by_name, connect_by_the_second_address,
                                          incoming],
}  # fmt: skip
"""With two endpoints."""

"""Traces of connections in qlog, for qvis and for `burstwire plot`.

A trace is a file of JSON text sequences (RFC 7464) as draft-ietf-quic-qlog-main-schema-04 lays it out, version "0.3",
with the events of draft-ietf-quic-qlog-quic-events-04. That is the newest version that qvis reads: later drafts write
"0.4" and name the events otherwise, and qvis refuses those.

`writer.py` puts records into a file, `frames.py` says what packets carry, `trace.py` what happens to a connection, and
`folder.py` which connections are traced, and where.
"""

from __future__ import annotations

from burstwire.qlog.folder import TraceFolder, trace_folder
from burstwire.qlog.trace import Trace

__all__ = ["Trace", "TraceFolder", "trace_folder"]

"""Whatever a sender says, in whatever order: the receiver's directory shows whole files or nothing."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from memory_stream import stream_pair

from burstwire.cli.exchange import Exchange, TransferError
from burstwire.cli.folder import Folder
from burstwire.cli.headers import LENGTH, Accept, Busy, Done, End, HeaderError, Offer, Prefix, Refuse, encode
from burstwire.cli.receiver import Inbox, Received, Rejection
from burstwire.errors import TransportError

CONTENTS = [b"", b"a", b"hello", b"x" * 3000]
hashes = st.sampled_from([hashlib.sha256(content).hexdigest() for content in CONTENTS] + ["0" * 64])
names = st.sampled_from(["file", "there", "dir", "link", "../file", "", "a/b", ".file", "a\0b"]) | st.text(max_size=8)
words = st.one_of(
    st.builds(
        encode,
        st.one_of(
            st.builds(
                Offer, names, st.sampled_from([len(content) for content in CONTENTS]), st.just(0), st.just(0o644)
            ),
            st.builds(Prefix, hashes),
            st.builds(End, hashes),
            st.builds(Accept, st.integers(0, 10)),
            st.builds(Done, st.booleans()),
            st.builds(Refuse, st.text(max_size=5), st.text(max_size=5)),
            st.just(Busy()),
        ),
    ),
    st.sampled_from(CONTENTS),
    st.binary(max_size=20),
    st.integers(0, 1 << 32 - 1).map(LENGTH.pack),
)
openings = st.builds(
    lambda content, sha256: [encode(Offer("file", len(content), 0, 0o644)), content, encode(End(sha256))],
    st.sampled_from(CONTENTS),
    hashes,
)


@settings(max_examples=150, deadline=None)
@given(conversations=st.lists(openings | st.lists(words, max_size=6), min_size=1, max_size=3))
def test_nothing_appears_that_is_not_whole(conversations: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        outside, box = Path(name) / "outside", Path(name) / "box"
        box.mkdir()
        outside.write_bytes(b"precious")
        (box / "there").write_bytes(b"mine")
        (box / "dir").mkdir()
        (box / "link").symlink_to(outside)
        folder = Folder(str(box))
        received = asyncio.run(_talk(Inbox(folder), conversations))
        folder.close()
        assert sorted(entry.name for entry in Path(name).iterdir()) == ["box", "outside"]
        assert outside.read_bytes() == b"precious"
        assert (box / "there").read_bytes() == b"mine"
        assert (box / "link").is_symlink()
        assert list((box / "dir").iterdir()) == []
        shown = {entry.name for entry in box.iterdir() if not entry.name.startswith(".")}
        assert shown - {"there", "dir", "link"} == {one.name for one in received if one.name != "there"}
        for one in received:
            assert hashlib.sha256((box / one.name).read_bytes()).hexdigest() == one.sha256
            assert (box / one.name).stat().st_size == one.size


async def _talk(inbox: Inbox, conversations: list[list[bytes]]) -> list[Received]:
    received = []
    for conversation in conversations:
        near, far = stream_pair(1 << 20)
        for part in conversation:
            await near.write(part)
        await near.finish()
        try:
            async with asyncio.timeout(10):
                received.append(await inbox.receive(Exchange(far, 5), b"s" * 32))
        except (Rejection, TransferError, HeaderError, TransportError):
            pass
    return received

"""What an administrator should know is said, once."""

from __future__ import annotations

import pytest

from burstwire.aio import endpoint


def test_a_clipped_receive_buffer_is_reported_once_with_both_sizes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoint, "_warned_of_small_buffer", False)
    endpoint._warn_of_small_buffer(4_194_304, 4_194_304)
    assert not caplog.messages
    for _ in range(2):
        endpoint._warn_of_small_buffer(212_992, 4_194_304)
    (message,) = caplog.messages
    assert "212,992" in message
    assert "4,194,304" in message
    assert "net.core.rmem_max" in message

"""Congestion controllers, one a file, behind one small interface."""

from __future__ import annotations

from burstwire.proto.congestion.base import (
    CongestionController,
    initial_window,
    make_controller,
    minimum_window,
)

__all__ = ["CongestionController", "initial_window", "make_controller", "minimum_window"]

"""All targets in Python by name: what runs one input, and what gives the inputs to begin with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from target_desk import desk, desk_seeds
from target_endpoint import datagrams, datagrams_seeds, peer, peer_seeds
from target_noise import noise, noise_seeds
from target_wire import (
    frames,
    frames_seeds,
    packets,
    packets_seeds,
    transport_parameters,
    transport_parameters_seeds,
)

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """What a fuzzer drives.

    Attributes:
        run: takes an input; whatever it raises is a finding.
        seeds: inputs to begin with, made by the code as it is now.
        longest: bytes of an input at most.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    longest: int


TARGETS = {
    "packets": Target(packets, packets_seeds, 1500),
    "frames": Target(frames, frames_seeds, 1500),
    "parameters": Target(transport_parameters, transport_parameters_seeds, 1500),
    "noise": Target(noise, noise_seeds, 2000),
    "desk": Target(desk, desk_seeds, 2000),
    "datagrams": Target(datagrams, datagrams_seeds, 1000),
    "peer": Target(peer, peer_seeds, 2000),
}

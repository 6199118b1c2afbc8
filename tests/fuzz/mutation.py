"""A fuzzer without tools: inputs of a corpus, changed at random from a seed. It learns nothing from coverage; atheris
and libFuzzer do, and what they learned lies in the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["mutated"]

BORDERS = (0, 1, 2, 4, 5, 8, 0x0C, 0x10, 0x1C, 0x3F, 0x40, 0x41, 0x7F, 0x80, 0xBF, 0xC0, 0xFE, 0xFF)


def mutated(corpus: Sequence[bytes], random: Random, longest: int) -> bytes:
    """One of the corpus with one to eight changes."""
    data = bytearray(random.choice(corpus))
    for _ in range(1 << random.randrange(4)):
        at = random.randrange(len(data) + 1)
        match random.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << random.randrange(8)
            case 1 if at < len(data):
                data[at] = random.choice(BORDERS)
            case 2 if at < len(data):
                data[at] = random.randrange(256)
            case 3:
                del data[at : at + 1 + random.randrange(16)]
            case 4:
                data[at:at] = random.randbytes(1 + random.randrange(8))
            case 5:  # a piece of another
                other = random.choice(corpus)
                start = random.randrange(len(other) + 1)
                data[at:at] = other[start : start + random.randrange(64)]
            case 6:  # the beginning of this, the rest of another
                other = random.choice(corpus)
                data[at:] = other[random.randrange(len(other) + 1) :]
            case _:  # a piece again
                start = random.randrange(len(data) + 1)
                data[at:at] = data[start : start + random.randrange(64)]
    return bytes(data[:longest])

"""Seeds of any size, and one for each place of a run."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, place: int, part: int = 0) -> int:
    """A seed below 2^63 for a place in the run of ``seed``: other places and other seeds give other numbers.

    Seeds below 2^23 keep the plain sum, so that runs which began with it resume exactly; larger ones are hashed.
    """
    plain = (seed << 40) + place
    if not part and plain < 2**63:
        return plain
    return int.from_bytes(hashlib.blake2b(f"{seed} {place} {part}".encode(), digest_size=8).digest()) >> 1

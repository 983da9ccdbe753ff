"""Is a JPEG whole? Its decoder goes on after damage, and gives wrong pixels without a word."""

from __future__ import annotations

from collections.abc import Iterable

import simplejpeg

_BYTES_LEFT = "extraneous bytes"


def check_jpeg(data: bytes, tables: bytes | None = None, others: Iterable[bytes] = ()) -> None:
    """Refuse a JPEG whose compressed data make too few pixels, or more than there are.

    ``tables`` are those that a TIFF stores once for all tiles. Bytes left over before the end mark are damage only
    where none of ``others``, tiles of the same writer, has them too. The code words are read, and pixels made at an
    eighth of the size, for a third of the time of decoding. It finds about half of the tiles that some flipped bits
    changed by more than 16 grey levels: the others are JPEGs that nobody can tell from sound ones.

    Raises:
        ValueError: the data are damaged.
    """
    fault = _fault(data, tables)
    if fault is None:
        return
    if _BYTES_LEFT in fault and any(_BYTES_LEFT in (_fault(other, tables) or "") for other in others):
        return
    raise ValueError(f"the JPEG data are damaged, {fault}")


def _fault(data: bytes, tables: bytes | None) -> str | None:
    """What libjpeg warns of; None for a sound JPEG, and for a kind that it does not know."""
    try:
        whole = tables[:-2] + data[2:] if tables else data
        simplejpeg.decode_jpeg(whole, colorspace="GRAY", min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        return str(error) if "Corrupt JPEG data" in str(error) else None
    return None

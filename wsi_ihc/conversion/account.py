"""The account of a run: its time, memory, device and notices. The sidecar holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wsi_ihc.errors import UnsupportedSlideError, one_line
from wsi_ihc.slides.notices import Notice, warnings_among


@dataclass(frozen=True)
class RunAccount:
    """Time, memory, device and notices of one run."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by stage: ``prepare``, ``stain``, ``write``, ``check``. The parts of a stage (``stain: read``) are
    summed over threads."""
    peak_memory_mb: float = 0.0
    """Largest resident memory of the process, MB."""
    blocks: int = 0
    """Blocks of the whole output, those of earlier runs included."""
    megapixels: float = 0.0
    """Working pixels that were stained, in millions, those of earlier runs included."""
    core_px: int = 0
    """Side of the blocks, working pixels: where seams would lie."""
    device: str = ""
    """``cpu`` or ``cuda``."""
    notices: tuple[Notice, ...] = ()

    @property
    def total_s(self) -> float:
        """Wall seconds of all stages."""
        return sum(seconds for stage, seconds in self.seconds.items() if ":" not in stage)

    @property
    def warnings(self) -> tuple[Notice, ...]:
        """The notices that doubt the output."""
        return warnings_among(self.notices)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the sidecar, under ``run``."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Any) -> RunAccount:
        """Reads the part ``run`` of a sidecar; skips keys of a later version.

        Raises:
            ValueError: it is damaged.
        """
        if not isinstance(told, dict):
            raise ValueError("the account of the run is no mapping")
        known = {name: told[name] for name in cls.__dataclass_fields__ if name in told}
        if isinstance(notices := known.get("notices"), list):  # an earlier version wrote plain text
            known["notices"] = [{"code": "", "text": each} if isinstance(each, str) else each for each in notices]
        try:
            return _ACCOUNT.validate_python(known)
        except ValidationError as error:
            raise ValueError(one_line(error)) from None


def notices_in(told: Any) -> tuple[str, ...]:
    """Texts of the notices that a sidecar holds under ``run``; none where it is damaged."""
    try:
        return tuple(map(str, RunAccount.from_json(told).notices))
    except ValueError:
        return ()


_ACCOUNT = TypeAdapter(RunAccount)


def numbered(notices: Iterable[Notice]) -> dict[str, str]:
    """Text by code for the provenance; the second notice of a code is ``code 2``."""
    found: dict[str, str] = {}
    for notice in notices:
        count = sum(name.partition(" ")[0] == notice.code for name in found)
        found[f"{notice.code} {count + 1}" if count else notice.code] = notice.text
    return found


def refuse_doubts(source: Path, notices: Iterable[Notice]) -> None:
    """Refuses the slide for ``--strict`` when there is a warning.

    Raises:
        UnsupportedSlideError: one of ``notices`` is a warning.
    """
    if doubts := warnings_among(notices):
        more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
        raise UnsupportedSlideError(
            f"{source}: refused by --strict: {doubts[0]}{more}; without --strict it is converted with this warning"
        )

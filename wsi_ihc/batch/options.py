"""Options of a batch, and how conversions side by side share the machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wsi_ihc.batch.claims import STALE_AFTER_S
from wsi_ihc.batch.limits import Limits
from wsi_ihc.config import ConversionSettings
from wsi_ihc.errors import SettingsError
from wsi_ihc.machine.processors import processors

_SLIDES_PER_GPU = 2


@dataclass(frozen=True)
class BatchOptions:
    """Options of a run over a cohort that do not change any pixel."""

    jobs: int | None = None
    """Slides at a time; they share the processor's threads. 1 by default, or two for each GPU."""
    gpus: tuple[str, ...] = ()
    """Each child sees one of them. While one slide is opened or written, the GPU stains the other: with one slide at a
    time a GPU waits for a third of the time (benchmarks/scaling.py)."""
    retry_failed: bool = False
    overwrite: bool = False
    """Replace outputs that no batch has made."""
    limits: Limits = field(default_factory=Limits)
    strict: bool = False
    """Count slides that are done with warnings as not done."""
    cache: Path | None = None
    cache_bytes: int | None = None
    stale_after_s: float = STALE_AFTER_S

    def __post_init__(self) -> None:
        """Raises SettingsError for more jobs than GPUs."""
        if self.gpus and self.at_once > _SLIDES_PER_GPU * len(self.gpus):
            raise SettingsError(
                f"--jobs {self.jobs}: there are {len(self.gpus)} GPUs, and each takes two slides at most"
            )

    @property
    def at_once(self) -> int:
        return self.jobs or _SLIDES_PER_GPU * len(self.gpus) or 1

    def seats(self) -> list[dict[str, str]]:
        """The environment of each child that may run at a time."""
        common = {"OMP_NUM_THREADS": str(max(1, processors() // self.at_once))} if self.at_once > 1 else {}
        gpus = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in self.gpus] or [{}]
        return [common | gpus[child % len(gpus)] for child in range(self.at_once)]


def with_threads(settings: ConversionSettings, jobs: int) -> ConversionSettings:
    """``settings`` with the threads of one of ``jobs`` children; what the user has set stays."""
    if jobs == 1 or settings.compute.threads:
        return settings
    threads = max(2, min(8, processors() // jobs + 1))
    return settings.model_copy(update={"compute": settings.compute.model_copy(update={"threads": threads})})

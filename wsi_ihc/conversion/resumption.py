"""The store of a run: that of an earlier run with the same fingerprint, or a new one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from wsi_ihc.conversion.block_size import USUAL_CORE_PX, choose_core_px
from wsi_ihc.conversion.choices import Choices
from wsi_ihc.conversion.findings import Findings, find, find_glass
from wsi_ihc.conversion.fingerprint import Fingerprint, fingerprint, settled
from wsi_ihc.conversion.opened import OpenedSlide
from wsi_ihc.conversion.progress import Progress
from wsi_ihc.conversion.request import Request
from wsi_ihc.conversion.store import StaleStoreError, StoreLayout, TileStore
from wsi_ihc.pyramid.layers import STAINED

logger = logging.getLogger(__name__)

_LARGEST_KEPT = 1 << 16
"""No batch and no machine is larger; a number above comes from a damaged file."""


def continue_or_begin(
    slide: OpenedSlide, request: Request, choices: Choices, path: Path, progress: Progress
) -> tuple[TileStore, Findings]:
    """The store at ``path`` with what was found once about the slide; a new one where none can be continued.

    Raises:
        UnsupportedSlideError: there is no tissue.
        StorageError: the disk refuses.
    """
    wanted = run_fingerprint(slide, request, choices)
    asked = request.settings.tiling.core_px
    core_px = USUAL_CORE_PX if asked == "auto" else asked
    layout = StoreLayout(slide.view.size, core_px, request.layers, slide.view.mpp)
    store = _earlier_store(path, layout, wanted, any_core=asked == "auto")
    findings = Findings.kept_in(store, slide.view.size) if store else None
    if store and findings:
        return store, findings
    findings = find(slide.identity.path, slide.view, choices.network, choices.mode, request.settings, progress)
    layout = _fitted(layout, slide, findings, request, choices)
    return TileStore.create(path, layout, wanted, findings.to_arrays()), findings


def run_fingerprint(slide: OpenedSlide, request: Request, choices: Choices) -> dict[str, Any]:
    """Everything that the pixels of a run depend on, the measures of its layers included."""
    card, settings = request.bundle.card, request.settings
    wanted = settled(
        fingerprint(slide.identity.digest, settings, f"{card.name} {card.sha256}"),
        halo_px=choices.halo_px,
        batch_size=settings.compute.batch_size,
        computation=choices.computation.recorded,
    )
    return {**wanted, **{f"layer.{each.layer.name}": each.measured_by for each in request.measured}}


def choose_batch_size(store: TileStore, request: Request, choices: Choices) -> int:
    """The batch size of the settings, or for ``auto`` what fits; the choice of an earlier run stays."""
    asked = request.settings.compute.batch_size
    if asked != "auto":
        return asked
    # On a processor a batch gains 2 to 5 %, and a larger window more for the same memory.
    window_px = store.layout.core_px + 2 * choices.halo_px
    fits = partial(choices.budget.batch, window_px) if choices.computation.device != "cpu" else lambda: 1
    return _kept_number(store, "batch_size", fits)


def choose_threads(store: TileStore, choices: Choices) -> int:
    """Threads of the arithmetic; the choice of an earlier run stays."""
    return _kept_number(store, "threads", lambda: choices.computation.threads)


def _fitted(
    layout: StoreLayout, slide: OpenedSlide, findings: Findings, request: Request, choices: Choices
) -> StoreLayout:
    """``layout`` with the size of block that pays for this tissue, and the colour of this slide's glass."""
    settings = request.settings
    if settings.tiling.core_px == "auto" and choices.mode != "tile":
        chosen = choose_core_px(
            choices.architecture,
            findings.mask,
            halo_px=choices.halo_px,
            align_px=choices.align_px,
            budget=choices.budget,
        )
        layout = replace(layout, core_px=chosen)
    if choices.learned:
        layout = layout.with_fill(STAINED, find_glass(slide.view, findings, settings, choices.align_px))
    return layout


def _earlier_store(path: Path, layout: StoreLayout, wanted: Fingerprint, *, any_core: bool) -> TileStore | None:
    """The store of an earlier run if that had the same fingerprint; else None, and a line in the log says why."""
    try:
        return TileStore.open(path, layout, wanted, any_core=any_core)
    except FileNotFoundError:
        return None
    except StaleStoreError as stale:
        logger.warning("starting from the beginning: %s", "; ".join(stale.differences))
        return None


def _kept_number(store: TileStore, name: str, choose: Callable[[], int]) -> int:
    """The number that an earlier run of this store chose, else a new choice, which is kept."""
    kept = store.load_json(name)
    if type(kept) is int and 0 < kept <= _LARGEST_KEPT:
        return kept
    chosen = choose()
    store.save_json(name, chosen)
    return chosen

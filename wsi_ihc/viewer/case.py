"""A case: one slide, its virtual stain and other scans of the same field, open for the page."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.config import SlideSettings, TissueSettings
from wsi_ihc.conversion.account import notices_in
from wsi_ihc.errors import StorageError, WsiIhcError
from wsi_ihc.pyramid.geometry import Region, Size
from wsi_ihc.slides import SlideReader, check_brightfield, open_slide
from wsi_ihc.tissue import TissueMask, tissue_from_thumbnail
from wsi_ihc.tissue.finding import ASSUMED_MPP
from wsi_ihc.tissue.shapes import dilated
from wsi_ihc.viewer.finding import CaseFiles, store_of
from wsi_ihc.viewer.outputs import Output, open_output
from wsi_ihc.viewer.overview import Overview
from wsi_ihc.viewer.pictures import Picture, Placement
from wsi_ihc.viewer.pyramid_tiles import PyramidTiles
from wsi_ihc.viewer.running import RunningTiles, running_tiles
from wsi_ihc.viewer.shapes import BLOCKS, STAINED, TISSUE, Shapes, block_shapes, tissue_shapes
from wsi_ihc.viewer.slide_tiles import SlideTiles

logger = logging.getLogger(__name__)

MARK = f"SYNTHETIC. {RESEARCH_USE_ONLY}"
"""Stands on the page and in every picture that is saved from it."""
CACHE_MB = 24
"""Of decoded source tiles, for each slide that is open."""


@dataclass
class Case:
    """What the page shows of one case. ``shapes`` and ``notices`` grow while the background looks at the slide."""

    files: CaseFiles
    frame: Size
    """Of level 0 of the H&E; all places are on it."""
    mpp: float | None
    """Micrometres per pixel of the frame."""
    pictures: tuple[Picture, ...]
    facts: Mapping[str, str]
    notices: list[str]
    shapes: dict[str, Shapes] = field(default_factory=dict)
    overviews: tuple[Overview, ...] = ()
    """Of every scan, the H&E's first."""
    running: RunningTiles | None = None
    """The virtual stain while it is made."""
    stop: Event = field(default_factory=Event)

    @property
    def title(self) -> str:
        return self.files.name

    @property
    def mark(self) -> str:
        return MARK if any(picture.is_synthetic for picture in self.pictures) else ""

    @property
    def busy(self) -> str:
        """What the background is doing; empty when it has finished."""
        if self.running:
            finished, wanted = self._blocks_so_far
            return f"staining, {finished} of {wanted} blocks"
        share = min((overview.share for overview in self.overviews), default=1.0)
        return f"reading the overview, {share:.0%}" if share < 1 else ""

    @property
    def _blocks_so_far(self) -> tuple[int, int]:
        assert self.running
        wanted = int(self.running.wanted.sum())
        try:
            return int(self.running.finished().sum()), wanted
        except StorageError:  # the output has just been completed
            return wanted, wanted

    def _running_shapes(self) -> Iterator[Shapes]:
        """The blocks that are stained, and those that will be."""
        if self.running is None:
            return
        (picture,) = (each for each in self.pictures if each.source is self.running)
        place = picture.placement.left, picture.placement.top, picture.placement.scale
        with suppress(StorageError):
            finished = self.running.finished()
            yield block_shapes(STAINED, "Blocks stained", self.running.blocks(finished), *place)
            waiting = self.running.blocks(self.running.wanted & ~finished)
            yield block_shapes(BLOCKS, "Blocks to be stained", waiting, *place)

    def described(self, tiles: Mapping[int, Any]) -> dict[str, Any]:
        """The case as the page's script reads it; ``tiles`` says for each picture where its tiles are."""
        return {
            "title": self.title,
            "mark": self.mark,
            "width": self.frame.width,
            "height": self.frame.height,
            "mpp": self.mpp,
            "pictures": [picture.described(tiles[number]) for number, picture in enumerate(self.pictures)],
            "shapes": [shapes.described() for shapes in (*self.shapes.values(), *self._running_shapes())],
            "notices": self.notices,
            "facts": dict(self.facts),
            "busy": self.busy,
            "running": self.running is not None,
        }

    def look(self) -> None:
        """Starts the background: overview and tissue. It ends with the process, or when ``stop`` is set."""
        if self.overviews:
            Thread(target=self.look_now, name=f"overview of {self.title}", daemon=True).start()

    def look_now(self) -> None:
        """Reads the overviews and finds the tissue; a slide that cannot be read becomes a notice."""
        for number, overview in enumerate(self.overviews):
            try:
                overview.read(self.stop)
                if number == 0 and self.files.slide and not self.stop.is_set():
                    self.shapes |= {TISSUE: tissue_shapes(_tissue(overview), 1.0)}
                    self.notices += map(str, check_brightfield(overview.view.slide, any_stain=True))
            except WsiIhcError as error:
                self.notices.append(f"overview and tissue: {error}")
                overview.rows_read = overview.view.size.height

    def close(self) -> None:
        """Ends the background. The readers close their files when the last thread lets go of them."""
        self.stop.set()


def open_case(files: CaseFiles) -> Case:
    """Opens every file of the case; nothing of the pixels is read yet.

    Raises:
        WsiIhcError: a file cannot be read, naming it.
    """
    output = open_output(files.output) if files.output and files.output.exists() else None
    running = running_tiles(store_of(files.output)) if files.output and not output else None
    # Of a slide that states no pixel size the output knows the one that was given to convert.
    settings = SlideSettings(cache_mb=CACHE_MB, mpp=output.provenance.source_mpp if output else None)
    slide = open_slide(files.slide, settings) if files.slide else None
    frame, mpp = _frame(slide, output, running)
    notices = [*_slide_notices(files, slide, output), *(notices_in(output.run) if output else ())]
    scans = [*_slide_pictures(slide), *(_other_picture(path, frame, mpp) for path in files.others)]
    virtual = [*_output_pictures(output), *_running_pictures(files, running, frame, mpp)]
    pictures = [*scans[:1], *virtual, *scans[1:]] if slide else [*virtual, *scans]
    overviews = tuple(picture.source.overview for picture in scans if isinstance(picture.source, SlideTiles))
    shapes = {BLOCKS: blocks} if output and (blocks := _blocks(output)) else {}
    return Case(files, frame, mpp, tuple(pictures), _facts(output), notices, shapes, overviews, running)


def fingerprint(path: Path) -> str:
    """Of a file's name, length and time: changes when the file is replaced."""
    stat = path.stat()
    text = f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _frame(slide: SlideReader | None, output: Output | None, running: RunningTiles | None) -> tuple[Size, float | None]:
    if slide:
        return slide.levels[0].size, slide.mpp
    if running:
        return running.size, running.store.layout.mpp
    assert output
    made = output.provenance
    return Size(made.source_height, made.source_width), made.source_mpp or made.mpp / made.scale


def _slide_pictures(slide: SlideReader | None) -> Iterator[Picture]:
    if slide and slide.path:
        source = SlideTiles(slide, Overview.of(slide), fingerprint(slide.path))
        yield Picture("H&E", "he", source, note=_note(slide.path, slide.mpp))


def _output_pictures(output: Output | None) -> Iterator[Picture]:
    if output is None:
        return
    made = output.provenance
    placement = Placement(made.offset_x, made.offset_y, made.scale)
    for layer, pyramid in output.pyramids.items():
        source = PyramidTiles(pyramid, fingerprint(output.path))
        if layer == "stained":
            yield Picture(f"Virtual {made.stain}", "virtual", source, placement, _note(output.path, made.mpp))
        else:
            yield Picture(layer.capitalize(), "layer", source, placement, _note(output.path, made.mpp))


def _running_pictures(
    files: CaseFiles, running: RunningTiles | None, frame: Size, mpp: float | None
) -> Iterator[Picture]:
    if running and files.output:
        own = running.store.layout.mpp
        scale = own / mpp if own and mpp else round(frame.width / running.size.width, 3)
        note = f"{_note(files.output, own)}, still running"
        yield Picture("Virtual stain", "virtual", running, Placement(scale=scale), note)


def _other_picture(path: Path, frame: Size, mpp: float | None) -> Picture:
    """Another scan of the same field: laid corner on corner, at its own pixel size where both state one."""
    slide = open_slide(path, SlideSettings(cache_mb=CACHE_MB))
    scale = slide.mpp / mpp if slide.mpp and mpp else frame.width / slide.levels[0].size.width
    source = SlideTiles(slide, Overview.of(slide), fingerprint(path))
    return Picture(path.name, "real", source, Placement(scale=scale), _note(path, slide.mpp))


def _note(path: Path, mpp: float | None) -> str:
    return f"{path.name}, {mpp:.4g} um/px" if mpp else f"{path.name}, pixel size unknown"


def _slide_notices(files: CaseFiles, slide: SlideReader | None, output: Output | None) -> Iterator[str]:
    if slide:
        yield from slide.notices
        if slide.mpp is None:
            yield f"{slide.path}: the pixel size is not known; lengths cannot be shown. Give it with --mpp."
    elif output:
        yield f"{output.provenance.source_name}: the H&E was not found beside the output; name it first: view SLIDE OUT"
    if slide and output:
        made, size = output.provenance, slide.levels[0].size
        if (made.source_height, made.source_width) != tuple(size):
            yield (
                f"{files.name}: has {size.width} x {size.height} px, but the output was made from "
                f"{made.source_name} of {made.source_width} x {made.source_height} px; is it the right slide?"
            )


def _facts(output: Output | None) -> dict[str, str]:
    return output.provenance.entries() if output else {}


def _blocks(output: Output) -> Shapes | None:
    """The grid of blocks, where the run's account tells it."""
    core = output.run.get("core_px")
    if not isinstance(core, int) or core <= 0:
        return None
    height, width = output.pyramids["stained"].levels[0]
    made = output.provenance
    cells = (
        Region(top, left, min(core, height - top), min(core, width - left))
        for top in range(0, height, core)
        for left in range(0, width, core)
    )
    return block_shapes(BLOCKS, f"Blocks of {core} px", cells, made.offset_x, made.offset_y, made.scale)


def _tissue(overview: Overview) -> TissueMask:
    """As ``convert`` finds it with its default settings, on the plane of level 0."""
    settings, view = TissueSettings(), overview.view
    mpp = (view.slide.mpp or ASSUMED_MPP) * view.scale
    tissue = dilated(tissue_from_thumbnail(overview.pixels, mpp, settings), settings.margin_um / mpp)
    return TissueMask(tissue, view.scale, view.slide.levels[0].size)

"""The pages of a TIFF that are the slide: the chosen scene and focal plane, and their reduced copies."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tifffile import TiffPage

from wsi_ihc.config import SlideSettings
from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides.ome_xml import OmeImage, OmeXml
from wsi_ihc.slides.reader import Contents, Scene, middle
from wsi_ihc.slides.tiff_chain import Chain, sub_pages
from wsi_ihc.slides.tiff_pages import MACRO, is_reduced, is_smaller, page_size, same_field, same_kind

SMALLEST_SCENE_PX = 512
"""Least pixels along the longer side of a scene: a smaller image is a label or an icon."""
_APERIO_REDUCED = re.compile(r"(\d{1,7})x(\d{1,7}) [^|]{0,200}-> ?(\d{1,7})x(\d{1,7})")
"""Matches Aperio's description of a reduced copy: full size, the part that was scanned, the size of the copy."""


@dataclass(frozen=True)
class SlidePages:
    """The levels of the chosen image, finest first, and the scenes and focal planes of the file."""

    levels: tuple[TiffPage, ...]
    contents: Contents
    notices: tuple[str, ...] = ()


def slide_pages(path: Path, chain: Chain, ome: OmeXml | None, settings: SlideSettings) -> SlidePages | None:
    """The pages of the scene and focal plane that ``settings`` choose; None for a file without an image.

    With OME-XML, its Images are the scenes, and it states the directory of each focal plane. Without it, tiled images
    of different shapes are scenes, and images of one size are focal planes.

    Raises:
        UnsupportedSlideError: the file has no such scene or focal plane.
    """
    if not chain.ifds:
        return None
    scenes = _ome_scenes(chain, ome) if ome else []
    if scenes:
        return _of_ome(path, chain, scenes, settings)
    contradiction = ("the OME-XML describes no image of this file, so scenes and planes are not known",) if ome else ()
    found = _of_plain(path, chain, settings)
    return SlidePages(found.levels, found.contents, (*contradiction, *found.notices))


def _of_ome(path: Path, chain: Chain, scenes: Sequence[OmeImage], settings: SlideSettings) -> SlidePages:
    number = _wanted(path, "scene", settings.scene, len(scenes), lambda: _largest([image.size for image in scenes]))
    image = scenes[number - 1]
    planes = sorted(plane for plane, ifd in image.ifds.items() if ifd in chain.ifds)
    plane = _wanted(path, "plane", settings.plane, len(planes), lambda: middle(len(planes)))
    baseline = chain.ifds[image.ifds[planes[plane - 1]]]
    claimed = {ifd for scene in scenes for ifd in scene.ifds.values()}
    free = [page for ifd, page in chain.ifds.items() if ifd not in claimed]
    notices = (
        [f"{image.depth - len(planes)} of {image.depth} planes are not in this file"]
        if len(planes) < image.depth
        else []
    )
    if page_size(baseline) != image.size:
        size = page_size(baseline)
        notices.append(
            f"the OME-XML says {image.size.width} x {image.size.height} px, the image has {size.width} x {size.height}"
        )
    listed = tuple(Scene(scene.size, scene.name) for scene in scenes)
    return SlidePages(_with_levels(baseline, free), Contents(listed, number, len(planes), plane), tuple(notices))


def _ome_scenes(chain: Chain, ome: OmeXml) -> list[OmeImage]:
    """The Images with a plane in this file, without label, macro and thumbnail unless there is nothing else."""
    here = [image for image in ome.images if any(ifd in chain.ifds for ifd in image.ifds.values())]
    return [image for image in here if image.is_slide] or here


def _of_plain(path: Path, chain: Chain, settings: SlideSettings) -> SlidePages:
    scenes = _plain_scenes(chain)
    sizes = [page_size(page) for page in scenes]
    number = _wanted(path, "scene", settings.scene, len(scenes), lambda: _largest(sizes))
    scene = scenes[number - 1]
    planes = _planes(chain, scene)
    plane = _wanted(path, "plane", settings.plane, len(planes), lambda: middle(len(planes)))
    baseline = planes[plane - 1]
    free = _of_plane(chain, plane, len(planes)) if len(planes) > 1 else list(chain.pages)
    contents = Contents(tuple(Scene(size) for size in sizes), number, len(planes), plane)
    return SlidePages(_with_levels(baseline, free), contents, _lost_resolution(baseline))


def _plain_scenes(chain: Chain) -> list[TiffPage]:
    """The largest tiled page (the largest page where none is tiled), and tiled pages of other shapes."""
    tiled = [page for page in chain.pages if page.is_tiled and not page.subfiletype & MACRO]
    candidates = tiled or list(chain.pages)
    baseline = candidates[_largest([page_size(page) for page in candidates]) - 1]
    others = [
        page
        for page in tiled
        if page.subfiletype == 0
        and max(page_size(page)) >= SMALLEST_SCENE_PX
        and same_kind(page, baseline)
        and not same_field(page, baseline)
        and not re.match(r"(?i).{0,80}?\b(label|macro|thumbnail|overview)\b", page.description, re.DOTALL)
    ]
    first_of_size = {page_size(page): page for page in reversed([baseline, *others])}
    return sorted(first_of_size.values(), key=lambda page: page.index)


def _planes(chain: Chain, scene: TiffPage) -> list[TiffPage]:
    """The focal planes of ``scene``: full-size pages of the same size."""
    size = page_size(scene)
    found = [page for page in chain.pages if page_size(page) == size and page.is_tiled and same_kind(page, scene)]
    full = [page for page in found if page.subfiletype == 0]
    return full if scene.is_tiled and any(page is scene for page in full) else [scene]


def _of_plane(chain: Chain, plane: int, planes: int) -> list[TiffPage]:
    """The page of focal plane number ``plane`` from each set of equal pages that has one for each of ``planes``."""
    by_size: dict[Size, list[TiffPage]] = {}
    for page in chain.pages:
        by_size.setdefault(page_size(page), []).append(page)
    return [pages[plane - 1] for pages in by_size.values() if len(pages) == planes]


def _with_levels(baseline: TiffPage, free: Sequence[TiffPage]) -> tuple[TiffPage, ...]:
    """``baseline`` and its reduced copies: its SubIFDs, or else the pages in ``free`` with its shape and layout."""
    candidates = sub_pages(baseline) if baseline.subifds else [page for page in free if is_reduced(page, baseline)]
    levels = [baseline]
    for page in sorted(candidates, key=lambda page: -page.imagewidth):
        if is_smaller(page, levels[-1]) and same_field(page, baseline):
            levels.append(page)
    return tuple(levels)


def _lost_resolution(page: TiffPage) -> tuple[str, ...]:
    """A line where tag or description say that ``page`` is the reduced copy of an image that the file lacks."""
    size = page_size(page)
    stated = _APERIO_REDUCED.search(page.description[:1000]) if page.is_svs else None
    if not (stated or page.subfiletype & 1):
        return ()
    full = f" of {stated.group(1)} x {stated.group(2)} px" if stated else ""
    return (
        f"the largest image, {size.width} x {size.height} px, says that it is a reduced copy{full}: "
        "the full resolution is not in this file, or cannot be read",
    )


def _largest(sizes: Sequence[Size]) -> int:
    """Number of the largest size, from 1; the first of equal ones."""
    return 1 + max(range(len(sizes)), key=lambda index: (sizes[index].height * sizes[index].width, -index))


def _wanted(path: Path, what: str, number: int | None, count: int, default: Callable[[], int]) -> int:
    if number is None:
        return default()
    if number > count:
        raise UnsupportedSlideError(f"{path}: {what} {number} is wanted, the file has {count}; see wsi-ihc info")
    return number

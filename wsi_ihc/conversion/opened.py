"""The slide of a conversion, open at the resolution of the generator, with what a user should know about it."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.conversion.account import refuse_doubts
from wsi_ihc.conversion.identity import SlideIdentity
from wsi_ihc.conversion.request import Request
from wsi_ihc.slides import SlideView, check_brightfield, open_slide
from wsi_ihc.slides.notice_kinds import slide_notices
from wsi_ihc.slides.notices import Notice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedSlide:
    """A slide that is open for reading."""

    identity: SlideIdentity
    """The slide as it was found."""
    view: SlideView
    notices: tuple[Notice, ...]


@contextmanager
def opened_slide(source: Path, request: Request) -> Generator[OpenedSlide]:
    """The slide at the generator's resolution, or at the one that the settings ask for.

    Raises:
        SlideError: the slide cannot be read, is no brightfield slide, or its pixel size is unknown or too coarse.
    """
    settings = request.settings
    with closing(open_slide(source, settings.slide)) as slide:
        doubts = check_brightfield(slide, any_stain=settings.checks.any_stain)
        notices = (*slide_notices(slide), *doubts)
        for notice in notices:
            logger.warning("%s", notice)
        if settings.checks.strict:
            refuse_doubts(source, notices)
        wanted = settings.resolution.mpp or request.bundle.card.mpp
        view = SlideView.at(slide, wanted, tolerance=settings.resolution.tolerance)
        if view.mpp is None:
            # A generator for any resolution does not need the pixel size; measurements on the output do.
            SlideView.at(slide, 0.5)
        logger.info("%s reads level %d of %s, %s px", slide.name, view.level, source.name, view.size)
        yield OpenedSlide(SlideIdentity.of(source), view, notices)

"""The kind of each notice of a slide reader, for programs; readers state their notices in words."""

from __future__ import annotations

from wsi_ihc.slides.notices import Notice, NoticeLevel
from wsi_ihc.slides.reader import SlideReader

# The first phrase that a notice holds decides.
_CODES = (
    ("pixel size", "pixel-size"),
    ("pixels of", "pixel-size"),
    ("read with", "reader"),
    ("is not used", "level"),
    ("missing near", "missing-parts"),
    ("breaks off", "damaged"),
    ("damaged", "damaged"),
    ("plane", "plane"),
    ("scene", "scene"),
)
_NOT_A_DOUBT = "as given, the file says nothing"
"""A pixel size that only the user can know is no contradiction."""


def slide_notices(slide: SlideReader) -> tuple[Notice, ...]:
    """The notices of ``slide`` in its order, each once. A kind that is not known has the code ``slide``."""
    return tuple(dict.fromkeys(Notice(_code(text), text, _level(text)) for text in slide.notices))


def _code(text: str) -> str:
    return next((code for phrase, code in _CODES if phrase in text), "slide")


def _level(text: str) -> NoticeLevel:
    return "note" if text.endswith(_NOT_A_DOUBT) else "warning"

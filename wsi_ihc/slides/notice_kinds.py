"""The code and level of each notice of a slide reader, for programs; readers give their notices as text."""

from __future__ import annotations

from wsi_ihc.slides.notices import Notice, NoticeLevel
from wsi_ihc.slides.reader import SlideReader

# The first phrase that occurs in a notice decides its code.
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
"""End of a notice that is only a note: the user's pixel size contradicts nothing in the file."""


def slide_notices(slide: SlideReader) -> tuple[Notice, ...]:
    """The notices of ``slide`` in their order, each once; a notice of no known kind has the code ``slide``."""
    return tuple(dict.fromkeys(Notice(_code(text), text, _level(text)) for text in slide.notices))


def _code(text: str) -> str:
    return next((code for phrase, code in _CODES if phrase in text), "slide")


def _level(text: str) -> NoticeLevel:
    return "note" if text.endswith(_NOT_A_DOUBT) else "warning"

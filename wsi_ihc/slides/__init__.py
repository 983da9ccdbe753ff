"""Pixels in: whole-slide images behind one small protocol."""

from wsi_ihc.slides.brightfield import check_brightfield
from wsi_ihc.slides.levels import Level
from wsi_ihc.slides.memory import MemorySlide
from wsi_ihc.slides.opening import open_slide
from wsi_ihc.slides.reader import SlideReader
from wsi_ihc.slides.view import SlideView

__all__ = ["Level", "MemorySlide", "SlideReader", "SlideView", "check_brightfield", "open_slide"]

"""Text from files and names, made safe to show. Names and metadata come from strangers and may hold anything.

Every place that shows such text uses :func:`printable`: terminal, logs, tables and pages. A page escapes HTML as well.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterator
from typing import Any

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""A spreadsheet takes a cell that begins so for a formula; the last four are the full-width forms."""
_BYTES = range(0xDC80, 0xDD00)
"""Python stands these in for bytes of a file name that are not UTF-8 (PEP 383)."""
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They change the order in which text is shown, so that a name can pretend to be another."""
_HIDDEN = frozenset("\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060\u3164\ufeff\uffa0")
"""They take no room, so that two different names look equal."""


def printable(text: object) -> str:
    r"""``text`` on one line, as a terminal can show it without being controlled by it.

    Control characters, line ends, marks that change the direction of text, invisible characters and bytes that are not
    UTF-8 become escapes as in Python's own strings: ``\n``, ``\x1b``, ``\xe4``, ``\u202e``. Everything else stays.
    """
    found = str(text)
    return found if found.isascii() and found.isprintable() else "".join(_shown(found))


def spreadsheet_cell(value: object) -> object:
    """``value`` for a CSV: text is printable, and text that begins like a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def json_text(value: Any) -> str:
    """``value`` as indented JSON whose text cannot control a terminal; a program reads back what ``value`` holds."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(json.dumps(each)[1:-1] if each != "\n" and _is_hidden(each) else each for each in text)


class PrintableRecord(logging.LogRecord):
    """A log record whose message is printable: for ``logging.setLogRecordFactory``."""

    def getMessage(self) -> str:
        return printable(super().getMessage())


def _shown(text: str) -> Iterator[str]:
    for character in text:
        if ord(character) in _BYTES:
            yield f"\\x{ord(character) - 0xDC00:02x}"
        else:
            yield character.encode("unicode_escape").decode("ascii") if _is_hidden(character) else character


def _is_hidden(character: str) -> bool:
    """Whether it controls how other text is shown, or is not seen itself."""
    if character.isascii():
        return not character.isprintable()
    category = unicodedata.category(character)
    # Beyond the basic plane all format characters are tags and notation marks, which nobody sees.
    unseen = category in ("Cc", "Cs", "Zl", "Zp", "Cn") or (category == "Cf" and ord(character) > 0xFFFF)
    return unseen or character in _DIRECTIONS or character in _HIDDEN

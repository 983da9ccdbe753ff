"""Which case a pair belongs to. Patches of one slide resemble each other, so a case is held out as a whole."""

from __future__ import annotations

import re

_PLACE = re.compile(r"^(?P<case>.*[^\d_\s-].*?|\d+)[_\s-]+[xyrc]?\d+[_\s-]+[xyrc]?\d+$", re.I)


def case_of(name: str, pattern: str | None = None) -> str:
    """The case that a pair's name states; the name itself where it states none.

    ``pattern`` is a regular expression whose first group is the case. Without it, two numbers at the end are the place
    of a patch (``slide12_1024_2048`` is of ``slide12``), and a folder before the last part is a case.
    """
    if pattern is not None:
        found = re.search(pattern, name)
        return found[1] if found and found.groups() and found[1] else name
    folder, _, last = name.rpartition("/")
    if folder and folder.lower() not in ("train", "val", "valid", "validation", "test"):
        return folder
    found = _PLACE.match(last)
    return found["case"] if found else name

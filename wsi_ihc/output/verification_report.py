"""The result of a verification: what was looked at, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsi_ihc.errors import one_line

_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """One question asked of a file. No ``problems``: all is well."""

    name: str
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class VerificationReport:
    """All checks of one file, in the order in which they were made."""

    path: Path
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line each, with the name of the check."""
        return tuple(f"{check.name}: {problem}" for check in self.checks for problem in check.problems)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": str(self.path),
            "ok": self.ok,
            "checks": [asdict(check) | {"ok": check.ok} for check in self.checks],
        }


def run_check(name: str, question: Callable[[], Iterable[str]]) -> Check:
    """Asks ``question`` for its problems. A damaged file makes any parser fail anywhere: that is a problem too."""
    problems: list[str] = []
    try:
        problems.extend(question())
    except (ValueError, OSError) as error:
        problems.append(_brief(error))
    except Exception as error:
        problems.append(f"damaged beyond reading ({_brief(error)})")
    problems = list(dict.fromkeys(problems))
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [f"and {len(problems) - _SHOWN} more like these"]
    return Check(name, tuple(problems))


def _brief(error: Exception) -> str:
    text = one_line(error)
    return text if len(text) <= 160 else f"{text[:157]}…"

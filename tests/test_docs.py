"""The documentation is true of the code where a machine can tell."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsi_ihc.measures.dyes import COUNTERSTAIN, DAB

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "sample_slides/README.md"]


def test_references_are_up_to_date() -> None:
    """In a process of its own: commands that were called before remember how they were asked for help."""
    command = [sys.executable, str(ROOT / "scripts/write_cli_reference.py")]
    result = subprocess.run([*command, "--check"], check=False)
    assert result.returncode == 0, "run python scripts/write_cli_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert missing == []


def test_the_site_builds(tmp_path: Path) -> None:
    """Strictly: every page is in the navigation, every link and anchor leads somewhere."""
    pytest.importorskip("material", reason="mkdocs-material is not installed (group docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="https?://(?!squidfunk)[^"]*"', page) == [], "nothing is loaded from elsewhere"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_at_most_120_columns_wide(page: Path) -> None:
    """Tables, code and what a program prints between its marks may be wider."""
    text = re.sub(
        r"<!-- (\S+).*?-->.*?<!-- (?:/\1|end of \1) -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    text = re.sub(r"^\s*```.*?^\s*```", "", text, flags=re.DOTALL | re.MULTILINE)
    wide = [line for line in text.splitlines() if len(line) > 120 and not line.startswith(("|", "![", "<"))]
    assert wide == []


def test_every_configuration_is_named_in_the_documentation() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [file.name for file in (ROOT / "configs").glob("*.yaml") if file.stem not in text] == []


def test_qupath_separates_the_stains_that_are_painted() -> None:
    script = (ROOT / "docs/qupath/open_virtual_ihc.groovy").read_text(encoding="utf-8")
    told = [tuple(map(float, values.split())) for values in re.findall(r'"Values \d" : "([\d. ]+)"', script)]
    painted = [np.array(dye) / np.linalg.norm(dye) for dye in (COUNTERSTAIN, DAB)]
    assert np.allclose(told, painted, atol=0.0006)

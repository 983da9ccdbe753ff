import re
import subprocess
import sys
from pathlib import Path

import wsi_ihc

ROOT = Path(__file__).parents[1]


def test_every_public_name_can_be_imported() -> None:
    for name in wsi_ihc.__all__:
        assert getattr(wsi_ihc, name).__doc__, f"{name} has no docstring"
    assert set(wsi_ihc.__all__) == set(wsi_ihc._HOME)
    assert len(wsi_ihc.__all__) <= 12


def test_import_is_light() -> None:
    """Nothing heavy is loaded before it is used."""
    code = "import sys, wsi_ihc; sys.exit(any(name in sys.modules for name in ('torch', 'dask', 'cv2', 'zarr')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(wsi_ihc, "nonsense")


def test_version_is_known_without_importing_anything() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", wsi_ihc.__version__)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {wsi_ihc.__version__}\n" in citation
    assert f"## [{wsi_ihc.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

import subprocess
import sys

import wsi_ihc


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

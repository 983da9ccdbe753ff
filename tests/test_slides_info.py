"""wsi-ihc info."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from wsi_ihc.cli.info import info
from wsi_ihc.errors import UnreadableSlideError


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    pixels = np.full((64, 96, 3), (220, 150, 190), np.uint8)
    with tifffile.TiffWriter(tmp_path / "slide.tiff") as tiff:
        options = {"tile": (16, 16), "photometric": "rgb", "metadata": None, "compression": "deflate"}
        tiff.write(pixels, resolution=(40000, 40000), resolutionunit="CENTIMETER", **options)
        tiff.write(pixels[::2, ::2], subfiletype=1, **options)
    return tmp_path / "slide.tiff"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(info, [str(argument) for argument in arguments], catch_exceptions=False)


def test_plain_lines_where_there_is_no_terminal(slide: Path) -> None:
    lines = run(slide).output.splitlines()
    assert lines[0] == str(slide)
    assert "  level 0    96 x 64 px  1/1  0.25 um/px" in lines
    assert "  level 1    48 x 32 px  1/2  0.5 um/px" in lines
    assert "level 1 as it is, 48 x 32 px at 0.5 um/px" in lines[5]


def test_json(slide: Path) -> None:
    facts = json.loads(run(slide, "--json", "--at", 0.4).output)
    assert facts["reader"] == "tiff"
    assert facts["levels"][1] == {"width": 48, "height": 32, "downsample": 2.0, "mpp": 0.5}
    assert facts["working"] == {"wanted": 0.4, "mpp": 0.4, "width": 60, "height": 40, "level": 0, "resampled": True}


def test_the_pixel_size_and_the_reader_can_be_given(slide: Path) -> None:
    facts = json.loads(run(slide, "--json", "--mpp", 2, "--reader", "openslide").output)
    assert (facts["reader"], facts["mpp"]) == ("openslide", 2.0)
    assert "too coarse" in facts["working"]["refused"]
    assert any("as given" in notice for notice in facts["notices"])


def test_a_refusal_is_the_error_itself(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").write_bytes(b"")
    with pytest.raises(UnreadableSlideError, match="empty"):
        run(tmp_path / "slide.svs")

"""What the pixels depend on, for conversion and batch alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_ihc.config import ConversionSettings, load_settings
from wsi_ihc.conversion.fingerprint import differences, digest, fingerprint, settled


def _of(**options: object) -> dict[str, object]:
    settings = load_settings(ConversionSettings, None, {key.replace("__", "."): options[key] for key in options})
    return fingerprint("source", settings, "generator 123")


@pytest.mark.parametrize(
    "option",
    [
        {"tiling__core_px": 1024},
        {"slide__cache_mb": 1},
        {"compute__threads": 3},
        {"compute__scheduler": "tcp://host:1"},
        {"checks__strict": True},
        {"checks__any_stain": True},
        {"generator__name": "elsewhere/bundle.safetensors"},
    ],
)
def test_what_does_not_change_the_pixels_is_no_part_of_it(option: dict[str, object]) -> None:
    assert digest(_of(**option)) == digest(_of())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"output__quality": 70}, "output.quality was 85, is 70"),
        ({"tissue__margin_um": 8}, "tissue.margin_um was 32.0, is 8.0"),
        ({"compute__precision": "float32"}, "compute.precision was auto, is float32"),
        ({"slide__mpp": 0.25}, "slide.mpp was nothing, is 0.25"),
    ],
)
def test_what_changes_the_pixels_is_said_in_words(option: dict[str, object], said: str) -> None:
    assert differences(_of(), _of(**option)) == [said]


def test_outlines_count_by_their_content(tmp_path: Path) -> None:
    outlines, copy = tmp_path / "a.geojson", tmp_path / "b.geojson"
    outlines.write_text("{}")
    copy.write_text("{}")
    first = _of(tissue__source=str(outlines))
    assert first == _of(tissue__source=str(copy))
    outlines.write_text("[]")
    assert differences(first, _of(tissue__source=str(outlines))) == ["the outlines of the tissue have changed"]


def test_a_setting_of_a_later_version_had_its_default() -> None:
    before = {key: value for key, value in _of().items() if key != "tissue.closing_um"}
    assert differences(before, _of()) == []


def test_a_run_also_depends_on_what_auto_became() -> None:
    def run(**computation: str) -> object:
        return settled(_of(), halo_px=64, batch_size=1, computation=computation)

    assert differences(run(device="cpu"), run(device="cuda")) == ["compute.device was cpu, is cuda"]  # type: ignore[arg-type]

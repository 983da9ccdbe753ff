from pathlib import Path

import pytest

from wsi_ihc.config import ConversionSettings, load_settings
from wsi_ihc.errors import SettingsError

ROOT = Path(__file__).parents[1]


def test_defaults_then_file_then_options_then_assignments(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("tiling: {core_px: 2048}\noutput: {quality: 70}\nslide: {mpp: 0.4}\n")
    settings = load_settings(ConversionSettings, file, {"output.quality": 80, "slide.mpp": 0.3}, ("slide.mpp=0.25",))
    assert settings.tiling.core_px == 2048
    assert settings.output.quality == 80
    assert settings.slide.mpp == 0.25
    assert settings.tissue.source == "auto"


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("tiling.halo=96", "unknown setting 'tiling.halo'; did you mean tiling.halo_px?"),
        ("nonsense=1", "unknown setting 'nonsense'; see the settings reference"),
        ("tiling.core_px=1000", "tiling.core_px: Input should be a multiple of 512, got 1000"),
        ("slide.mpp=1000", "slide.mpp"),
        ("compute.device=tpu", "compute.device: expected auto, cpu, cuda or cuda:INDEX, got 'tpu'"),
        ("compute.batch_size=0", "compute.batch_size"),
        ("output=3", "output: a section, set one of its keys, got 3"),
        ("tiling", "key=value"),
        ("tiling.core_px.x=1", "tiling.core_px"),
        ("output.quality=[", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(assignment: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(ConversionSettings, assignments=(assignment,))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"bad\.yaml"):
        load_settings(ConversionSettings, file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot read"):
        load_settings(ConversionSettings, tmp_path / "none.yaml")


@pytest.mark.parametrize("page", ["settings.md", "training_settings.md"])
def test_every_field_says_what_it_is_for(page: str) -> None:
    """The pages are generated from the fields' docstrings; tests/test_docs.py checks that they are up to date."""
    rows = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    keys = [row for row in rows if row.startswith("| `")]
    assert len(keys) > 20
    assert [row for row in keys if not row.rpartition(" | ")[2].strip(" |")] == []

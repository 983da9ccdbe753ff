"""``wsi-ihc evaluate`` from pairs on disk to the report, and one line for everything that can be wrong."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from wsi_ihc.cli import _run as run_command
from wsi_ihc.errors import DataSetError, GeneratorError, SettingsError
from wsi_ihc.evaluation.evaluate import load_test_set
from wsi_ihc.evaluation.generated import (
    find_bundle,
    from_generator,
    from_predictions,
    stain_whole,
    whole_image_stainer,
)
from wsi_ihc.evaluation.images import measure_images
from wsi_ihc.evaluation.report import read_report
from wsi_ihc.generators import Architecture, GeneratorCard, build_network, initialise, load_generator, save_bundle
from wsi_ihc.pairs.folders import find_pairs, read_pair
from wsi_ihc.pairs.images import read_image

SCORES = ("0", "1+", "2+", "3+")
SIDE = 40


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _field(seed: int, dab: float) -> NDArray[np.uint8]:
    """Blobs of haematoxylin and DAB, painted with the vectors that the measures use."""
    noise = np.random.default_rng(seed).random((SIDE, SIDE, 2))
    amounts = np.clip(cv2.GaussianBlur(noise, (0, 0), 2) * 6 - 2.6, 0, 1) * (0.5, dab)
    density = amounts @ np.array([[0.650, 0.704, 0.286], [0.268, 0.570, 0.776]])
    return np.round(255 * 10**-density).astype(np.uint8)


@pytest.fixture
def bci(tmp_path: Path) -> Path:
    """Three pairs of each HER2 score; the stain grows with the score."""
    root = tmp_path / "BCI"
    for index in range(12):
        name = f"{index:05d}_test_{SCORES[index % 4]}.png"
        _save(root / "HE" / "test" / name, _field(index, 0.1))
        _save(root / "IHC" / "test" / name, _field(index, 0.1 + 0.3 * (index % 4)))
    return root


@pytest.fixture
def predict(bci: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], ending: str = "") -> Path:
        for pair in find_pairs(bci):
            _save(tmp_path / name / f"{pair.name}{ending}.png", change(read_pair(pair)[1]))
        return tmp_path / name

    return make


def _blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5), np.uint8)


def _run(*arguments: str | Path) -> int:
    return run_command(["evaluate", *map(str, arguments)])


def test_a_report_from_predictions(bci: Path, predict: Callable[..., Path], tmp_path: Path) -> None:
    blurred, out = predict("blurred", _blurred, "_fake_B"), tmp_path / "report"
    assert _run("--predictions", blurred, "--data", bci, "-o", out, "-q", "--no-html", "--workers", "1") == 0

    content = json.loads((out / "report.json").read_text())
    figures = {(figure["measure"], figure["group"]): figure for figure in content["figures"]}
    assert {group for _, group in figures} == {"all", *SCORES}
    expected = [peak_signal_noise_ratio(real, _blurred(real)) for _, real in map(read_pair, find_pairs(bci))]
    psnr = figures["psnr", "all"]["estimate"]
    assert psnr["value"] == pytest.approx(np.mean(expected))
    assert psnr["low"] < psnr["value"] < psnr["high"]
    assert figures["dab_r", "all"]["estimate"]["value"] > 0.9
    assert figures["order_violations", "all"]["estimate"]["value"] == pytest.approx(0, abs=0.05)
    assert figures["spread_ratio", "all"]["estimate"]["value"] == pytest.approx(0.8, abs=0.1)  # blur takes variance
    assert ("fid", "all") not in figures, "the built-in space must never be called FID"
    assert ("texture_frechet", "all") in figures
    assert any("no FID" in note for note in content["notes"])
    assert "Research use only" in content["research_use_only"]

    with (out / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows[:4]] == list(SCORES)
    assert np.mean([float(row["psnr"]) for row in rows]) == pytest.approx(np.mean(expected))


def test_the_page_needs_no_other_file(bci: Path, predict: Callable[..., Path], tmp_path: Path) -> None:
    blurred, out = predict("<blurred> & co", _blurred), tmp_path / "report"
    assert _run("--predictions", blurred, "--data", bci, "-o", out, "-q", "--workers", "1") == 0
    page = (out / "report.html").read_text()
    assert all(source.startswith("data:image/jpeg") for source in re.findall(r'src="([^"]+)"', page))
    assert not re.search(r'<(link|script)|url\("?http', page)
    assert page.count("<svg") == 3
    assert page.count("<figure>") == 9
    assert "&lt;blurred&gt; &amp; co" in page
    assert len(re.findall(r"<b>\d{5}_test_[0-3]\+?</b>", page)) == 9


def test_perfect_images_are_written_as_valid_json(bci: Path, predict: Callable[..., Path], tmp_path: Path) -> None:
    same, out = predict("same", lambda image: image), tmp_path / "report"
    assert _run("--predictions", same, "--data", bci, "-o", out, "--recipe", "bci", "--workers", "1") == 0
    (out / "images.csv").write_text((out / "images.csv").read_text().replace("name,score", "name,level"))  # as 0.1 did
    report = read_report(out)
    assert report.figure("psnr").estimate.value == np.inf  # type: ignore[union-attr]
    assert report.figure("ssim").estimate.value == pytest.approx(1)  # type: ignore[union-attr]
    assert report.figure("dab_r") is None
    assert "NaN" not in (out / "report.json").read_text()


def test_runs_are_compared_image_by_image(bci: Path, predict: Callable[..., Path], tmp_path: Path) -> None:
    good, bad = predict("good", _blurred), predict("bad", lambda image: 255 - _blurred(image))
    first, second = tmp_path / "first", tmp_path / "second"
    assert _run("--predictions", bad, "--data", bci, "-o", first, "-q", "--no-html", "--workers", "1") == 0
    assert _run("--predictions", good, "--data", bci, "-o", second, "--against", first, "--workers", "1") == 0
    comparison = json.loads((second / "report.json").read_text())["comparison"]
    ssim = next(row["paired"] for row in comparison["differences"] if row["measure"] == "ssim")
    assert (ssim["wins"], ssim["losses"]) == (12, 0)
    assert ssim["p"] == pytest.approx(2 / 2**12)
    assert ssim["difference"]["low"] > 0
    assert comparison["best_on"]["ssim"] == {"good": 12, "bad": 0}
    with (second / "comparison.csv").open() as file:
        assert next(csv.DictReader(file))["best"] == "good"
    assert "against bad" in (second / "report.html").read_text()


def test_other_real_images_are_not_compared(
    bci: Path, predict: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blurred = predict("blurred", _blurred)
    options = ("--predictions", blurred, "--data", bci, "--recipe", "bci", "-q", "--no-html", "--workers", "1")
    assert _run(*options, "-o", tmp_path / "first") == 0
    _save(find_pairs(bci)[0].ihc, _field(99, 0.5))
    assert _run(*options, "-o", tmp_path / "second", "--against", tmp_path / "first") == DataSetError.exit_code
    assert "other real images" in capsys.readouterr().err


def _tiny_bundle(path: Path, norm: str) -> torch.nn.Module:
    architecture = Architecture(kind="resnet", blocks=1, base_channels=4, norm=norm, dropout=True)  # type: ignore[arg-type]
    network = build_network(architecture)
    torch.manual_seed(0)
    initialise(network)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 32, 32))  # running statistics that are not the initial ones
    card = GeneratorCard(name="tiny", architecture=architecture, stain="HER2 IHC")
    return save_bundle(path, card, network.state_dict()).build()


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_generator_sees_the_whole_image_in_eval_mode(bci: Path, tmp_path: Path, norm: str) -> None:
    """As the published code does with --eval: running or whole-image statistics, no dropout, values rounded."""
    network = _tiny_bundle(tmp_path / "run" / "best.safetensors", norm)
    pairs = find_pairs(bci)[:2]
    made = from_generator(str(tmp_path / "run"), pairs, tmp_path / "generated", device="cpu")
    for task in made.tasks:
        he = torch.from_numpy(read_pair(task.pair)[0].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            expected = ((network(he)[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
        np.testing.assert_allclose(read_image(task.generated), expected, atol=1)
    assert made.origin["generator"] == "tiny"


def test_images_of_any_size_go_through_a_generator(tmp_path: Path) -> None:
    _tiny_bundle(tmp_path / "tiny.safetensors", "batch")
    for stain in ("HE", "IHC"):
        _save(tmp_path / stain / "a.png", _field(0, 0.5)[:37, :30])
    made = from_generator(str(tmp_path / "tiny.safetensors"), find_pairs(tmp_path), tmp_path / "out", device="cpu")
    assert read_image(made.tasks[0].generated).shape == (37, 30, 3)


def test_a_run_with_several_bundles_is_ambiguous(tmp_path: Path) -> None:
    assert find_bundle("recolour") == "recolour"
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").touch()
    with pytest.raises(GeneratorError, match=r"found a\.safetensors, b\.safetensors"):
        find_bundle(str(tmp_path))
    (tmp_path / "best.safetensors").touch()
    assert find_bundle(str(tmp_path)).endswith("best.safetensors")


def test_a_built_in_generator_end_to_end(bci: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    quick = ("--workers", "1", "--device", "cpu", "--recipe", "bci")
    assert _run("recolour", "--data", bci, "-o", out, "--against", "identity", *quick) == 0
    shown = capsys.readouterr().out
    assert "recolour minus the other run" in shown
    assert "identity" in shown
    assert len(list((out / "generated").iterdir())) == 12
    assert (out / "against" / "1" / "report.html").exists()


def test_many_processes_measure_what_one_measures(bci: Path, predict: Callable[..., Path]) -> None:
    tasks = from_predictions(predict("blurred", _blurred), find_pairs(bci)).tasks
    alone, together = (measure_images(tasks, ("bci", "modern"), workers=workers) for workers in (1, 2))
    assert [image.name for image in together] == [task.pair.name for task in tasks]
    for a, b in zip(alone, together, strict=True):
        assert a.values == pytest.approx(b.values, nan_ok=True)
        np.testing.assert_array_equal(a.histograms, b.histograms)


def _remove(path: Path) -> None:
    path.unlink()


def _crop(path: Path) -> None:
    _save(path, read_image(path)[:-8])


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove, "1 of 12 images are missing, first 00000_test_0"),
        (_crop, "40 x 32 px but the real image has 40 x 40"),
        (_truncate, "cannot be read as an image"),
    ],
)
def test_bad_predictions_get_one_line(
    bci: Path,
    predict: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    folder = predict("made", _blurred)
    damage(folder / "00000_test_0.png")
    code = _run("--predictions", folder, "--data", bci, "-o", tmp_path / "report", "-q", "--workers", "1")
    error = capsys.readouterr().err.strip()
    assert code == DataSetError.exit_code
    assert message in error
    assert error.count("\n") == 0


def test_wrong_combinations_get_one_line(
    bci: Path, predict: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blurred, out, empty = predict("blurred", _blurred), tmp_path / "report", tmp_path / "empty"
    empty.mkdir()
    common = ("--data", bci, "-o", out, "-q", "--no-html", "--workers", "1")
    for arguments, code, message in (
        (common, 2, "either a generator"),
        (("recolour", "--predictions", blurred, *common), 2, "either a generator"),
        (("--predictions", empty, *common), 8, "no images"),
        (("--predictions", blurred, "--data", empty, "-o", out), 8, "no pairs"),
        (("--predictions", blurred, *common, "--features", tmp_path / "absent.pt"), 2, "no such feature network"),
        (("--predictions", blurred, *common, "--split", "train"), 8, "no split 'train'; it has test"),
        (("nowhere", *common), 4, "not found"),
    ):
        assert _run(*arguments) == code
        error = capsys.readouterr().err.strip()
        assert message in error
        assert error.count("\n") == 0
    assert _run("--predictions", blurred, *common, "--recipe", "bci") == 0
    assert _run("--predictions", blurred, *common, "--recipe", "bci") == 6
    assert _run("--predictions", blurred, *common, "--recipe", "bci", "--overwrite") == 0


def test_the_test_split_is_the_default(bci: Path) -> None:
    for stain in ("HE", "IHC"):
        _save(bci / stain / "train" / "00099_train_0.png", _field(0, 0.5))
    assert len(load_test_set(bci).pairs) == 12
    assert load_test_set(bci, split="train").pairs[0].split == "train"
    assert load_test_set(bci / "HE" / "test", bci / "IHC" / "test").data["split"] is None
    with pytest.raises(DataSetError, match="no partner"):
        load_test_set(bci / "HE" / "test", bci / "IHC" / "train")


@pytest.mark.usefixtures("every_processor")
@pytest.mark.parametrize(
    ("precision", "norm"), [("float32", "instance"), ("bfloat16", "instance"), ("float32", "batch")]
)
def test_torch_judges_what_crashes_openvino(tiny_bundles: dict[str, Path], precision: str, norm: str) -> None:
    """On every processor: InstanceNorm is not folded here, and float32 is what is asked for unless a user says else."""
    bundle = load_generator(str(tiny_bundles[f"resnet-{norm}"]))
    stainer, normalisation = whole_image_stainer(bundle, device="cpu", precision=precision)
    assert stainer.describe()["backend"] == "torch"
    assert normalisation == ("whole image" if norm == "instance" else "running")
    assert stain_whole(stainer, stainer.align_px, np.full((30, 34, 3), 200, np.uint8)).shape == (30, 34, 3)


def test_the_benchmarks_recipe(tmp_path: Path) -> None:
    """Figures of 256 px centres, with a perceptual network of the user's; nothing outside the centre counts."""
    noise = np.random.default_rng(0)
    for index in range(4):
        real = np.full((300, 280, 3), 235, np.uint8)
        real[60:, 60:] -= np.uint8(20 * index)
        made = np.clip(real + noise.normal(0, 2, real.shape), 0, 255).astype(np.uint8)
        made[:20] = 0
        for folder, image in (("data/HE/test", real), ("data/IHC/test", real), ("made", made)):
            path = tmp_path / folder / f"{index:05d}_test_3+.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    network = tmp_path / "lpips.pt2"
    torch.export.save(
        torch.export.export(_Difference(), (torch.zeros(1, 3, 256, 256), torch.ones(1, 3, 256, 256))), network
    )
    out = tmp_path / "report"
    common = ("--predictions", tmp_path / "made", "--data", tmp_path / "data", "-o", out, "--workers", "1")
    assert _run(*common, "--recipe", "bench", "--lpips", network) == 0
    figures = {
        figure["measure"]: figure["estimate"] for figure in json.loads((out / "report.json").read_text())["figures"]
    }
    assert set(figures) == {"bench_psnr", "bench_ssim", "bench_dab_mae", "bench_lpips", "bench_dab_r"}
    assert figures["bench_psnr"]["value"] == pytest.approx(42.1, abs=0.5)  # 20 log10(255 / 2)
    assert figures["bench_dab_r"]["value"] > 0.99
    assert figures["bench_lpips"]["value"] == pytest.approx(1.6 / 127.5, rel=0.1)  # mean of a normal's absolute value
    assert _run(*common, "--overwrite", "--recipe", "bench", "--lpips", tmp_path / "made") == SettingsError.exit_code


class _Difference(torch.nn.Module):
    def forward(self, real: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
        return (real - generated).abs().mean().reshape(1, 1, 1, 1)


def test_four_images_have_no_distance(tmp_path: Path, bci: Path, predict: Callable[..., Path]) -> None:
    few = tmp_path / "few"
    for stain in ("HE", "IHC"):
        (few / stain / "test").mkdir(parents=True)
        for path in sorted((bci / stain / "test").iterdir())[:4]:
            shutil.copy(path, few / stain / "test" / path.name)
    out = tmp_path / "report"
    made = predict("good", _blurred)
    assert _run("--predictions", made, "--data", few, "-o", out, "--workers", "1", "--recipe", "modern") == 0
    report = json.loads((out / "report.json").read_text())
    assert not any(figure["measure"].startswith("texture") for figure in report["figures"])
    assert any("need 8 images or more; this set has 4" in notice for notice in report["notices"])

"""The whole path on small slides: the promises of docs/design.md, one by one."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dask.distributed import LocalCluster
from numpy.typing import NDArray

from tests.conftest import stained_island, write_slide
from wsi_ihc.config import ConversionSettings, load_settings
from wsi_ihc.conversion.executors import run_serial
from wsi_ihc.conversion.plan import Batch
from wsi_ihc.conversion.progress import Silence
from wsi_ihc.conversion.staining import BatchReport, StainingJob
from wsi_ihc.conversion.store import TileStore, files
from wsi_ihc.convert import ConversionReport, convert_slide, estimate_conversion
from wsi_ihc.errors import (
    OutputError,
    ResolutionError,
    SettingsError,
    StorageError,
    UnreadableSlideError,
    UnsupportedSlideError,
)
from wsi_ihc.generators.openvino_engine import openvino_is_installed
from wsi_ihc.measures.seams import seam_score
from wsi_ihc.output.ometiff import verify_ome_tiff
from wsi_ihc.output.ometiff.figures import stated_notices


def _settings(*assignments: str, **options: object) -> ConversionSettings:
    return load_settings(
        ConversionSettings, None, {key.replace("__", "."): value for key, value in options.items()}, assignments
    )


IDENTITY = _settings(generator__name="identity", output__compression="deflate", tissue__source="none")


def _left_over(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_identity_reproduces_the_slide_bit_for_bit(small_slide: Path, tmp_path: Path) -> None:
    report = convert_slide(small_slide, tmp_path / "out.ome.tiff", IDENTITY)
    np.testing.assert_array_equal(tifffile.imread(report.output), tifffile.imread(small_slide))
    assert _left_over(tmp_path) == {"out.ome.tiff", "out.json"}
    assert verify_ome_tiff(report.output).ok


def test_glass_is_white_and_tissue_is_untouched(small_slide: Path, tmp_path: Path) -> None:
    settings = _settings(generator__name="identity", output__compression="deflate")
    pixels = tifffile.imread(convert_slide(small_slide, tmp_path / "out.ome.tiff", settings).output)
    source = tifffile.imread(small_slide)
    assert (pixels[:40, :40] == 255).all()
    middle = slice(400, 900)
    np.testing.assert_array_equal(pixels[middle, middle], source[middle, middle])


@pytest.mark.parametrize("normalisation", ["batch", "instance"])
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_the_grid_does_not_change_the_pixels(
    kind: str, normalisation: str, small_slide: Path, tiny_bundles: dict[str, Path], tmp_path: Path
) -> None:
    """Promise 1, through the whole path: one grey level in float32, with the tissue's soft edge and the pyramid."""
    planes = []
    for core in (512, 1536):
        settings = _settings(
            f"tiling.core_px={core}",
            generator__name=str(tiny_bundles[f"{kind}-{normalisation}"]),
            compute__precision="float32",
            output__compression="deflate",
        )
        output = tmp_path / f"{core}.ome.tiff"
        convert_slide(small_slide, output, settings)
        planes.append(tifffile.imread(output).astype(int))
    assert planes[0].std() > 5
    assert abs(planes[0] - planes[1]).max() <= 1


def test_a_different_grid_gives_the_same_bytes_where_arithmetic_is_exact(small_slide: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "a.ome.tiff", tmp_path / "b.ome.tiff"]
    for output, core in zip(outputs, (512, 2048), strict=True):
        convert_slide(small_slide, output, _settings(f"tiling.core_px={core}", generator__name="identity"))
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_dask_and_the_serial_loop_agree(small_slide: Path, tmp_path: Path) -> None:
    settings = _settings("tiling.core_px=512", generator__name="recolour")
    convert_slide(small_slide, tmp_path / "dask.ome.tiff", settings)
    convert_slide(small_slide, tmp_path / "serial.ome.tiff", settings, executor=run_serial)
    assert (tmp_path / "dask.ome.tiff").read_bytes() == (tmp_path / "serial.ome.tiff").read_bytes()


@pytest.mark.slow
def test_a_cluster_of_processes_writes_the_same_bytes(
    small_slide: Path, tiny_bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are other processes, in another folder, reached by the scheduler's address, and two conversions at a time
    share them; paths here are relative."""
    monkeypatch.chdir(small_slide.parent)
    bundle = os.path.relpath(tiny_bundles["resnet-instance"])
    learned = {"generator__name": bundle, "generator__calibration_px": 128, "compute__precision": "float32"}
    generators: dict[str, dict[str, object]] = {"learned": learned, "identity": {"generator__name": "identity"}}

    def convert(name: str, where: str, **compute: object) -> bytes:
        settings = _settings("tiling.core_px=512", **generators[name], **compute)
        return convert_slide(small_slide.name, tmp_path / f"{name}_{where}.ome.tiff", settings).output.read_bytes()

    here = [convert(name, "here") for name in generators]
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=str(tmp_path)
        ) as cluster,
        ThreadPoolExecutor(2) as pool,
    ):
        address = cluster.scheduler_address
        there = list(pool.map(lambda name: convert(name, "there", compute__scheduler=address), generators))
    assert here == there


def _command(slide: Path, output: Path) -> list[str]:
    options = ["--generator", "identity", "--set", "tiling.core_px=512", "--quiet"]
    return [sys.executable, "-m", "wsi_ihc", "convert", str(slide), "-o", str(output), *options]


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(tmp_path: Path) -> None:
    slide = tmp_path / "slide.tiff"
    write_slide(slide, stained_island(5000, 5000))
    subprocess.run(_command(slide, tmp_path / "whole.ome.tiff"), check=True, timeout=120)
    truth = (tmp_path / "whole.ome.tiff").read_bytes()
    output, store = tmp_path / "killed.ome.tiff", tmp_path / "killed.ome.tiff.blocks.zarr"
    chance = random.Random(1)
    kept = 0
    for _ in range(4):
        process = subprocess.Popen(_command(slide, output), start_new_session=True)
        before = _blocks(store)
        # Some moment after the first new block: the kill falls into work, not into the start.
        while process.poll() is None and _blocks(store) <= before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert _blocks(store) >= before, "a finished block was lost"
        kept = max(kept, _blocks(store))
        if output.exists():
            break
        assert not output.exists()
    assert kept > 0
    subprocess.run(_command(slide, output), check=True, timeout=120)
    assert output.read_bytes() == truth


def _blocks(store: Path) -> int:
    try:
        return sum(name[0].isdigit() for name in os.listdir(store / "blocks"))
    except FileNotFoundError:
        return 0


def test_an_interrupt_is_one_line_and_resumable(tmp_path: Path) -> None:
    slide = tmp_path / "slide.tiff"
    write_slide(slide, stained_island(5000, 5000))
    output, store = tmp_path / "out.ome.tiff", tmp_path / "out.ome.tiff.blocks.zarr"
    process = subprocess.Popen(
        _command(slide, output),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not _blocks(store):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = said.strip().split("\n")  # click ends the line on which the terminal wrote ^C
    assert "continue" in line
    assert not output.exists()
    assert _blocks(store)


def test_changed_settings_start_afresh_and_say_why(
    small_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out.ome.tiff"

    def fails(*_: object) -> None:
        raise StorageError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("wsi_ihc.output.ometiff.format.write_ome_tiff", fails)
        with pytest.raises(StorageError):
            convert_slide(small_slide, output, _settings(generator__name="identity"))
    convert_slide(small_slide, output, _settings(generator__name="identity", output__quality=70))
    assert any("starting from the beginning" in message and "quality" in message for message in caplog.messages)
    assert verify_ome_tiff(output).ok


def test_a_run_that_goes_on_keeps_the_size_of_its_blocks(
    small_slide: Path,
    tiny_bundles: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What there is of memory may have changed since."""
    settings = _settings(generator__name=str(tiny_bundles["resnet-batch"]), compute__precision="float32")

    class Interrupts(Silence):
        def advance(self, blocks: int) -> None:
            raise KeyboardInterrupt

    def convert(name: str, core_px: int, progress: Silence | None = None) -> ConversionReport:
        monkeypatch.setattr("wsi_ihc.conversion.resumption.choose_core_px", lambda *_, **__: core_px)
        return convert_slide(small_slide, tmp_path / name, settings, progress=progress)

    whole = convert("whole.ome.tiff", 512)
    with pytest.raises(KeyboardInterrupt):
        convert("resumed.ome.tiff", 512, Interrupts())
    assert _blocks(tmp_path / "resumed.ome.tiff.blocks.zarr")
    resumed = convert("resumed.ome.tiff", 1024)
    assert not caplog.records
    assert resumed.output.read_bytes() == whole.output.read_bytes()
    assert resumed.plan.grid.core_px == whole.plan.grid.core_px == 512
    assert convert("fresh.ome.tiff", 1024).plan.grid.core_px == 1024


@pytest.mark.skipif(not openvino_is_installed(), reason="OpenVINO is not installed")
def test_openvino_stains_a_slide_as_torch_does(
    small_slide: Path, tiny_bundles: dict[str, Path], tmp_path: Path
) -> None:
    planes = []
    for backend in ("torch", "openvino"):
        settings = _settings(
            generator__name=str(tiny_bundles["resnet-batch"]),
            compute__precision="float32",
            compute__backend=backend,
            output__compression="deflate",
        )
        report = convert_slide(small_slide, tmp_path / f"{backend}.ome.tiff", settings)
        assert report.provenance.backend == backend
        assert backend in report.provenance.versions
        planes.append(tifffile.imread(report.output).astype(int))
    assert planes[0].std() > 5
    assert abs(planes[0] - planes[1]).max() <= 1


def test_a_full_disk_is_one_line_and_loses_nothing(
    small_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.ome.tiff"
    settings = _settings("tiling.core_px=512", generator__name="identity")
    write, calls = os.pwrite, 0

    def fills_up(descriptor: int, data: bytes, position: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, position)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "pwrite", fills_up)
        with pytest.raises(StorageError, match="disk is full") as caught:
            convert_slide(small_slide, output, settings)
    assert "\n" not in str(caught.value)
    assert not output.exists()
    finished = _blocks(tmp_path / "out.ome.tiff.blocks.zarr")
    assert finished
    report = convert_slide(small_slide, output, settings)
    assert report.plan.blocks > finished
    assert verify_ome_tiff(output).ok


def test_a_run_killed_between_naming_and_tidying_is_finished_by_the_next(
    small_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.ome.tiff"
    with monkeypatch.context() as patch:
        patch.setattr("wsi_ihc.conversion.workspace.Workspace.discard", lambda self: None)
        first = convert_slide(small_slide, output, IDENTITY)
    before = output.read_bytes()
    second = convert_slide(small_slide, output, IDENTITY)
    assert output.read_bytes() == before
    assert second.run == first.run, "the account of the run that wrote the output"
    assert second.run.total_s > 0
    assert {"prepare", "stain", "write", "check"} <= second.run.seconds.keys()
    assert _left_over(tmp_path) == {"out.ome.tiff", "out.json"}


def test_a_warning_travels_with_the_output_and_strict_refuses_it(small_slide: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.ome.tiff"
    given = {"generator__name": "identity", "slide__mpp": 0.3}
    with pytest.raises(UnsupportedSlideError, match=r"refused by --strict: .*0\.3"):
        convert_slide(small_slide, output, _settings(**given, checks__strict=True))
    assert _left_over(tmp_path) == set()
    report = convert_slide(small_slide, output, _settings(**given))
    (notice,) = report.run.warnings
    with tifffile.TiffFile(output) as tiff:
        assert notice.text in tiff.pages[0].description.replace("&gt;", ">")
    assert json.loads((tmp_path / "out.json").read_text())["run"]["notices"][0]["text"] == notice.text
    assert verify_ome_tiff(output).ok
    assert any(notice.text in line for line in stated_notices(output))


@pytest.mark.parametrize("damage", [-5, 0, True, "many", 1 << 40, None, [1]])
def test_a_damaged_number_in_the_store_is_chosen_again(damage: object, small_slide: Path, tmp_path: Path) -> None:
    """A batch of -5 blocks once left all blocks out, and glass in their place."""
    output = tmp_path / "out.ome.tiff"
    done = convert_slide(small_slide, tmp_path / "whole.ome.tiff", IDENTITY).output.read_bytes()

    def stop(job: StainingJob, batches: Sequence[Batch]) -> Iterator[BatchReport]:
        yield from run_serial(job, batches[:1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_slide(small_slide, output, IDENTITY, executor=stop)
    store = TileStore.attach(Path(f"{output}.blocks.zarr"))
    for name in ("batch_size", "threads", "complete"):
        store.save_json(name, damage)
    assert convert_slide(small_slide, output, IDENTITY).output.read_bytes() == done


def test_a_slide_rewritten_while_it_is_read_is_noticed(small_slide: Path, tmp_path: Path) -> None:
    """Also where the samples of its content, which are all that a digest sees, are still the same."""
    slide = Path(shutil.copyfile(small_slide, tmp_path / "slide.tiff"))

    def rewriting(job: StainingJob, batches: Sequence[Batch]) -> Iterator[BatchReport]:
        yield from run_serial(job, batches)
        os.utime(slide, ns=(1, 1))

    output = tmp_path / "out.ome.tiff"
    with pytest.raises(UnreadableSlideError, match="changed while it was read"):
        convert_slide(slide, output, IDENTITY, executor=rewriting)
    assert _left_over(tmp_path) == {"slide.tiff"}, "no block of a mixture is kept"


def test_outlines_are_not_replaced_by_the_sidecar(small_slide: Path, tmp_path: Path) -> None:
    outlines = tmp_path / "out.json"
    outlines.write_text("{}")
    with pytest.raises(SettingsError, match="sidecar would replace it"):
        convert_slide(small_slide, tmp_path / "out.ome.tiff", _settings(tissue__source=str(outlines)), overwrite=True)
    assert outlines.read_text() == "{}"


def test_an_output_is_not_replaced_unasked(small_slide: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.ome.tiff"
    output.write_bytes(b"precious")
    with pytest.raises(OutputError, match="--overwrite"):
        convert_slide(small_slide, output, IDENTITY)
    assert output.read_bytes() == b"precious"
    convert_slide(small_slide, output, IDENTITY, overwrite=True)
    assert verify_ome_tiff(output).ok


def test_two_runs_on_one_output(small_slide: Path, tmp_path: Path) -> None:
    from wsi_ihc.conversion.workspace import Workspace

    output = tmp_path / "out.ome.tiff"
    with (
        Workspace.around(output, small_slide, overwrite=False).locked(),
        pytest.raises(OutputError, match=f"process {os.getpid()}"),
    ):
        convert_slide(small_slide, output, IDENTITY)


@pytest.mark.parametrize(("name", "error"), [("out.png", SettingsError), ("small.tiff", SettingsError)])
def test_names_that_cannot_be(small_slide: Path, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        convert_slide(small_slide, small_slide.parent / name, IDENTITY, overwrite=True)


def test_a_slide_without_pixel_size_tells_how_to_give_it(tmp_path: Path) -> None:
    slide = tmp_path / "slide.tiff"
    write_slide(slide, stained_island(600, 600), mpp=None)
    with pytest.raises(ResolutionError, match="--mpp"):
        convert_slide(slide, tmp_path / "out.ome.tiff", IDENTITY)
    report = convert_slide(
        slide,
        tmp_path / "out.ome.tiff",
        IDENTITY.model_copy(update={"slide": IDENTITY.slide.model_copy(update={"mpp": 0.25})}),
    )
    assert report.provenance.mpp == 0.25


def test_an_empty_slide_is_refused(tmp_path: Path) -> None:
    slide = tmp_path / "slide.tiff"
    write_slide(slide, np.full((800, 800, 3), 243, np.uint8))
    with pytest.raises(UnsupportedSlideError, match="no tissue found"):
        convert_slide(slide, tmp_path / "out.ome.tiff", _settings(generator__name="identity"))
    assert _left_over(tmp_path) == {"slide.tiff"}


def test_a_refusal_keeps_what_an_earlier_run_has_stained(small_slide: Path, tmp_path: Path) -> None:
    """A mistake in an option must not cost the hours behind it."""
    outlines, output = tmp_path / "edited.geojson", tmp_path / "out.ome.tiff"
    outlines.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_ihc.conversion.workspace.Workspace.discard", lambda self: None)
        convert_slide(small_slide, output, IDENTITY)
    stained = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    dusty = _settings(tissue__min_area_um2=1e9, generator__name="identity")
    for settings in (_settings(tissue__source=str(outlines)), _settings(slide__mpp=20.0), dusty):
        with pytest.raises((SettingsError, ResolutionError, UnsupportedSlideError)):
            convert_slide(small_slide, output, settings, overwrite=True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == stained


def test_provenance_is_in_the_file_and_beside_it(
    small_slide: Path, tiny_bundles: dict[str, Path], tmp_path: Path
) -> None:
    settings = _settings("generator.calibration_px=128", generator__name=str(tiny_bundles["resnet-instance"]))
    output = convert_slide(small_slide, tmp_path / "out.ome.tiff", settings).output
    beside = json.loads((tmp_path / "out.json").read_text())
    with tifffile.TiffFile(output) as tiff:
        xml = tiff.pages[0].description
    made = beside["provenance"]
    assert made["normalisation"] == "calibrated"
    for text in (made["statistics_sha256"], made["generator_sha256"], "small.tiff", "Research use only"):
        assert text in xml
    assert str(small_slide.parent) not in xml
    assert beside["run"]["seconds"]["stain"] > 0
    assert beside["run"]["peak_memory_mb"] > 0


def test_the_estimate_writes_nothing(small_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    estimate = estimate_conversion(small_slide, IDENTITY)
    assert estimate.plan.blocks == 4
    assert estimate.seconds > 0
    assert _left_over(tmp_path) == set()


def test_resampled_working_plane_is_independent_of_the_grid(tmp_path: Path) -> None:
    """A slide at 0.2 um/px for a generator at 0.5: the reduced pixels must not depend on their windows."""
    slide = tmp_path / "slide.tiff"
    write_slide(slide, stained_island(2900, 3100), mpp=0.2)
    planes: list[NDArray[np.uint8]] = []
    for core in (512, 1024):
        settings = IDENTITY.model_copy(
            update={
                "tiling": IDENTITY.tiling.model_copy(update={"core_px": core}),
                "resolution": IDENTITY.resolution.model_copy(update={"mpp": 0.5}),
            }
        )
        report = convert_slide(slide, tmp_path / f"{core}.ome.tiff", settings)
        planes.append(tifffile.imread(report.output))
        assert report.provenance.scale == pytest.approx(2.5)
    np.testing.assert_array_equal(*planes)
    assert planes[0].shape == (1160, 1240, 3)


@pytest.mark.slow
@pytest.mark.data
def test_two_grids_on_a_real_slide(shared_data: Path, tiny_bundles: dict[str, Path], tmp_path: Path) -> None:
    """Calibrated InstanceNorm on a section of skin: the same pixels from cores of 512 and of 1,536, and no seams."""
    slide = shared_data / "slides/aperio_svs_cmu1_small_region/CMU-1-Small-Region.svs"
    options = {"generator__name": str(tiny_bundles["resnet-instance"]), "generator__calibration_px": 256}
    planes = []
    for core in (512, 1536):
        settings = _settings(
            f"tiling.core_px={core}", compute__precision="float32", output__compression="deflate", **options
        )
        planes.append(tifffile.imread(convert_slide(slide, tmp_path / f"{core}.ome.tiff", settings).output))
    assert planes[0].std() > 5
    assert abs(planes[0].astype(int) - planes[1]).max() <= 1
    # Tissue has edges of its own on these lines: no more of a step than the H&E shows there.
    source = tifffile.imread(slide)[:2560, :2048]
    assert seam_score(planes[0][:2560, :2048], 512).gradient <= seam_score(source, 512).gradient


@pytest.mark.slow
def test_the_published_way_shows_seams_and_ours_does_not(tiny_bundles: dict[str, Path], tmp_path: Path) -> None:
    slide = tmp_path / "slide.tiff"
    write_slide(slide, stained_island(2560, 2560))
    scores = {}
    for normalisation in ("tile", "calibrated"):
        settings = _settings(
            "tiling.core_px=512",
            generator__name=str(tiny_bundles["resnet-instance"]),
            generator__normalisation=normalisation,
            tissue__source="none",
            # JPEG subsamples colour within each tile, which leaves a faint step of its own in saturated noise.
            output__compression="deflate",
        )
        output = convert_slide(slide, tmp_path / f"{normalisation}.ome.tiff", settings).output
        scores[normalisation] = seam_score(tifffile.imread(output), 512)
    # Statistics of its own give each tile a tone of its own; the halo leaves no hard edge between them.
    assert scores["tile"].dab > 1.5
    assert scores["tile"].dab_p < 0.01
    assert scores["calibrated"].dab == pytest.approx(1, abs=0.25)
    assert scores["calibrated"].dab_p > 0.05

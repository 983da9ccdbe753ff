"""Every measure of one image, and of many images on all cores."""

from __future__ import annotations

import math
import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import DataSetError, DeviceError
from wsi_ihc.evaluation.recipes import Recipe
from wsi_ihc.machine.child import end_with_parent
from wsi_ihc.measures import benchmark, fidelity, stain
from wsi_ihc.pairs.folders import Pair, read_pair
from wsi_ihc.pairs.images import read_image

REDUCED_PX = 32
"""Side of the reduced images whose variance is compared. Reduced, so that the noise of texture is not counted."""
MIN_SIDE_PX = 16
_FEW = 8  # images for which starting processes takes longer than measuring


@dataclass(frozen=True, slots=True)
class Task:
    """A real image and the generated one to compare with it."""

    pair: Pair
    generated: Path


@dataclass(frozen=True, slots=True)
class ImageMeasures:
    """Measures of one image: a value for each column of the CSV, and the data that pooled measures need."""

    name: str
    score: str | None
    values: Mapping[str, float]
    histograms: NDArray[np.int64]  # (2, 256): DAB of the real image, of the generated one; empty unless modern
    reduced: NDArray[np.float32]  # (2, 32, 32, 3), in the same order


def measure_image(task: Task, recipes: tuple[Recipe, ...]) -> ImageMeasures:
    """Read three images and measure.

    Raises:
        DataSetError: an image is missing, unreadable, too small, or its size differs.
    """
    he, real = read_pair(task.pair)
    generated = read_image(task.generated)
    if generated.shape != real.shape:
        raise DataSetError(
            f"{task.generated}: {generated.shape[1]} x {generated.shape[0]} px but the real image has "
            f"{real.shape[1]} x {real.shape[0]}; evaluate at full resolution"
        )
    if min(real.shape[:2]) < MIN_SIDE_PX:
        raise DataSetError(
            f"{task.pair.ihc}: {real.shape[1]} x {real.shape[0]} px; expected {MIN_SIDE_PX} px a side or more"
        )
    values: dict[str, float] = {"real_crc32": float(zlib.crc32(real.tobytes()))}
    histograms = np.zeros((2, 0), np.int64)
    if "bci" in recipes:
        values |= {"psnr": fidelity.psnr(real, generated), "ssim": fidelity.ssim(real, generated)}
    if "modern" in recipes:
        modern, histograms = _measure_stain(he, real, generated)
        values |= {"ms_ssim": fidelity.ms_ssim(real, generated)} | modern
    if "bench" in recipes:
        values |= _measure_centre(task, real, generated)
    reduced = np.stack([_reduced(real), _reduced(generated)])
    return ImageMeasures(task.pair.name, task.pair.score, values, histograms, reduced)


def _measure_centre(task: Task, real: NDArray[np.uint8], generated: NDArray[np.uint8]) -> dict[str, float]:
    if min(real.shape[:2]) < benchmark.CROP_PX:
        raise DataSetError(
            f"{task.pair.ihc}: {real.shape[1]} x {real.shape[0]} px; the recipe bench needs {benchmark.CROP_PX} px a "
            "side, choose --recipe bci or modern"
        )
    real, generated = benchmark.centre_crop(real), benchmark.centre_crop(generated)
    dab_real, dab = benchmark.mean_dab(real), benchmark.mean_dab(generated)
    return {
        "bench_psnr": fidelity.psnr(real, generated),
        "bench_ssim": benchmark.box_ssim(real, generated),
        "bench_dab_real": dab_real,
        "bench_dab": dab,
        "bench_dab_mae": abs(dab - dab_real),
    }


def _measure_stain(
    he: NDArray[np.uint8], real: NDArray[np.uint8], generated: NDArray[np.uint8]
) -> tuple[dict[str, float], NDArray[np.int64]]:
    nuclei, _ = stain.unmix(he, "h-e")
    real_nuclei, real_dab = stain.unmix(real, "h-dab")
    nuclei_made, dab = stain.unmix(generated, "h-dab")
    histograms = np.stack([stain.density_histogram(real_dab), stain.density_histogram(dab)])
    strength_real, strength = stain.top_decile(real_dab), stain.top_decile(dab)
    integrated_real, integrated = stain.integrated_density(real_dab), stain.integrated_density(dab)
    brown_real, brown, both = stain.brown_areas(real_dab, dab)
    values = {
        "dab_top_decile_real": strength_real,
        "dab_top_decile": strength,
        "dab_error": abs(strength - strength_real),
        "iod_real": integrated_real,
        "iod": integrated,
        "iod_difference": integrated - integrated_real,
        "histogram_divergence": stain.histogram_divergence(histograms[0], histograms[1]),
        "brown_real_px": float(brown_real),
        "brown_px": float(brown),
        "brown_both_px": float(both),
        "brown_dice": stain.dice(brown_real, brown, both),
        "haematoxylin_ssim": stain.haematoxylin_ssim(nuclei, nuclei_made),
        "haematoxylin_ssim_real": stain.haematoxylin_ssim(nuclei, real_nuclei),
    }
    return values, histograms


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = cv2.resize(image, (REDUCED_PX, REDUCED_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def measure_images(
    tasks: Sequence[Task], recipes: tuple[Recipe, ...], *, workers: int, advance: Callable[[], None] | None = None
) -> list[ImageMeasures]:
    """Measures of all images, in the order of ``tasks``, on ``workers`` processes.

    Memory bound: three images per process, and 26 kB of results per image.

    Raises:
        DataSetError: as ``measure_image``.
        DeviceError: a process was killed, as a rule because memory ran out.
    """
    measured = []
    for result in _results(tasks, recipes, workers):
        measured.append(result)
        if advance:
            advance()
    return measured


def _begin() -> None:
    end_with_parent()
    cv2.setNumThreads(1)


def _results(tasks: Sequence[Task], recipes: tuple[Recipe, ...], workers: int) -> Iterator[ImageMeasures]:
    if workers <= 1 or len(tasks) <= _FEW:
        yield from (measure_image(task, recipes) for task in tasks)
        return
    # Processes are spawned, not forked: the parent may hold torch's threads.
    context = multiprocessing.get_context("spawn")
    chunk = max(1, min(8, math.ceil(len(tasks) / workers / 4)))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    try:
        yield from pool.map(measure_image, tasks, [recipes] * len(tasks), chunksize=chunk)
    except BrokenProcessPool:
        raise DeviceError(
            "a measuring process was killed, most likely because memory ran out; try --workers 1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)

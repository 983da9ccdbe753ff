"""The whole evaluation: pairs and generated images in, a folder with the report out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import DataSetError, OutputError, StorageError
from wsi_ihc.evaluation.comparison import Comparison, compare
from wsi_ihc.evaluation.generated import Generated, read_ahead
from wsi_ihc.evaluation.images import ImageMeasures, Task, measure_images
from wsi_ihc.evaluation.recipes import BCI_NOTES, BENCH_NOTES, MODERN_NOTES, TEXTURE_WARNING, Recipe
from wsi_ihc.evaluation.report import JSON_NAME, Report, write_report
from wsi_ihc.evaluation.summary import ALL, Figure, columns_of, groups_of, summarise
from wsi_ihc.machine.processors import processors
from wsi_ihc.measures import distribution
from wsi_ihc.measures.benchmark import centre_crop
from wsi_ihc.measures.bootstrap import Estimate
from wsi_ihc.measures.distribution import MIN_IMAGES, TEXTURE, FeatureSpace
from wsi_ihc.measures.perceptual import perceptual_distance
from wsi_ihc.pairs.folders import Pair, complete, find_pairs, pair_folders, read_pair
from wsi_ihc.pairs.images import read_image

Advance = Callable[[], None]
Progress = Callable[[str, int], Advance]
"""Called at the start of a stage with its name and number of images; the answer is called once per image."""

COLLAPSED = 0.5
_PREFERRED_SPLITS = ("test", "val", "valid", "validation")


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an evaluation; the same for all runs that are compared."""

    recipes: tuple[Recipe, ...] = ("bci", "modern")
    features: str = TEXTURE
    lpips: Path | None = None
    """A perceptual network for the recipe bench."""
    seed: int = 0
    workers: int = 0
    html: bool = True


@dataclass(frozen=True, slots=True)
class TestSet:
    """The pairs of an evaluation, and the facts that the report states about them."""

    pairs: tuple[Pair, ...]
    data: dict[str, Any]


def _silent(stage: str, images: int) -> Advance:
    return lambda: None


def load_test_set(root: Path, ihc: Path | None = None, split: str | None = None) -> TestSet:
    """The pairs of ``root``, or of ``root`` (H&E) and ``ihc``; the test split where there are splits.

    Raises:
        DataSetError: no pairs, a missing partner, or a name that occurs twice.
    """
    pairs = complete(pair_folders(root, ihc)) if ihc else find_pairs(root, split)
    if split is None:
        present = {pair.split for pair in pairs}
        split = next((name for name in _PREFERRED_SPLITS if name in present), None)
        pairs = [pair for pair in pairs if split is None or pair.split == split]
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    if twice:
        raise DataSetError(f"{root}: {twice[0]} occurs in several splits; choose one with --split")
    scores = Counter(pair.score for pair in pairs if pair.score)
    data = {"folder": root.name, "split": split, "layout": pairs[0].layout, "scores": dict(sorted(scores.items()))}
    return TestSet(tuple(pairs), data)


def prepare_output(folder: Path, *, overwrite: bool = False) -> None:
    """Creates the folder of the report. A report that exists is kept, unless ``overwrite``.

    Raises:
        OutputError: it holds a report. StorageError: it cannot be made.
    """
    if (folder / JSON_NAME).exists() and not overwrite:
        raise OutputError(f"{folder}: holds a report already; choose another folder or pass --overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made ({error.strerror or error})") from None


def evaluate(
    generated: Generated,
    test_set: TestSet,
    folder: Path,
    options: Options = Options(),
    *,
    against: Sequence[Report] = (),
    progress: Progress = _silent,
) -> tuple[Report, Comparison | None]:
    """Measure, summarise, compare and write ``report.json``, ``images.csv`` and ``report.html`` into ``folder``.

    Raises:
        DataSetError: an image cannot be used, or runs cannot be compared. SettingsError: the feature network or an
        optional library is missing. StorageError: the report cannot be written.
    """
    space = distribution.feature_space(options.features) if "modern" in options.recipes else None
    started = time.perf_counter()
    images = measure_images(
        generated.tasks,
        options.recipes,
        workers=options.workers or processors(),
        advance=progress("measuring", len(generated.tasks)),
    )
    speed = {"images_per_second": len(images) / (time.perf_counter() - started)}
    if options.lpips and "bench" in options.recipes:
        images = _with_lpips(options.lpips, generated.tasks, images, progress("LPIPS", len(images)))
    figures = summarise(images, options.recipes, options.seed)
    if space:
        advance = progress("features", 2 * len(images))
        figures += _distances(space, generated.tasks, images, options.seed, advance)
    report = _report(generated, test_set, images, figures, options, space)
    report = replace(report, speed=speed)
    comparison = compare([report, *against], options.seed) if against else None
    write_report(report, folder, comparison)
    if options.html:
        from wsi_ihc.evaluation.page import write_page

        write_page(report, images, generated.tasks, folder, comparison)
    return report, comparison


def _report(
    generated: Generated,
    test_set: TestSet,
    images: Sequence[ImageMeasures],
    figures: Sequence[Figure],
    options: Options,
    space: FeatureSpace | None,
) -> Report:
    by_recipe: dict[Recipe, tuple[str, ...]] = {"bci": BCI_NOTES, "modern": MODERN_NOTES, "bench": BENCH_NOTES}
    notes = tuple(note for recipe in options.recipes for note in by_recipe[recipe])
    if space and not space.is_inception:
        notes += (TEXTURE_WARNING,)
    report = Report(
        name=generated.name,
        names=tuple(image.name for image in images),
        scores=tuple(image.score for image in images),
        recipes=options.recipes,
        figures=tuple(figures),
        columns=columns_of(images),
        features=space.name if space else None,
        origin=generated.origin,
        data=test_set.data,
        notes=notes,
        seed=options.seed,
        software=_software(),
    )
    return replace(report, notices=generated.notices + tuple(_notices(report)))


def _notices(report: Report) -> Iterator[str]:
    """Warnings that stand above the first number."""
    if "modern" in report.recipes and len(report.names) < MIN_IMAGES:
        yield f"Distances between sets need {MIN_IMAGES} images or more; this set has {len(report.names)}."
    if not any(report.scores):
        yield "No HER2 scores in the names of the images: figures are overall only."
    spread = report.figure("spread_ratio")
    if spread and spread.estimate.value < COLLAPSED:
        yield (
            f"Spread ratio {spread.estimate.value:.2f}: the outputs vary far less than the targets, as after mode "
            "collapse."
        )
    if "ms_ssim" in report.columns and np.isnan(report.columns["ms_ssim"]).any():
        yield "MS-SSIM is undefined for images under 161 px a side; those are left out."


def _with_lpips(
    path: Path, tasks: Sequence[Task], images: Sequence[ImageMeasures], advance: Advance
) -> list[ImageMeasures]:
    """The images with the perceptual distance of their centres."""
    distance = perceptual_distance(path)
    measured = []
    for task, image in zip(tasks, images, strict=True):
        crops = (centre_crop(picture) for picture in (_read_real(task), _read_generated(task)))
        measured.append(replace(image, values={**image.values, "bench_lpips": distance(*crops)}))
        advance()
    return measured


def _distances(
    space: FeatureSpace, tasks: Sequence[Task], images: Sequence[ImageMeasures], seed: int, advance: Advance
) -> list[Figure]:
    """Fréchet and kernel distance per group.

    A group of fewer than ``MIN_IMAGES`` has neither; one no larger than the features has no Fréchet distance, but for
    the whole set.
    """
    if len(images) < MIN_IMAGES:
        return []
    real, made = (_features(space, tasks, read, advance) for read in (_read_real, _read_generated))
    frechet, kernel = space.distances
    figures = []
    for group, members in groups_of([image.score for image in images]).items():
        if len(members) < MIN_IMAGES:
            continue
        a, b = real[members], made[members]
        if group == ALL or len(members) > real.shape[1]:
            figures.append(Figure(frechet, group, distribution.frechet_estimate(a, b, seed)))
        estimate = distribution.kernel_estimate(a, b, seed)
        per_mille = Estimate(1000 * estimate.value, 1000 * estimate.low, 1000 * estimate.high, estimate.n)
        figures.append(Figure(kernel, group, per_mille))
    return figures


def _features(
    space: FeatureSpace, tasks: Sequence[Task], read: Callable[[Task], NDArray[np.uint8]], advance: Advance
) -> NDArray[np.float64]:
    def counted(images: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        for image in images:
            yield image
            advance()

    with ThreadPoolExecutor(2) as pool:
        return space.features(counted(read_ahead(pool, read, tasks)))


def _read_real(task: Task) -> NDArray[np.uint8]:
    return read_pair(task.pair)[1]


def _read_generated(task: Task) -> NDArray[np.uint8]:
    return read_image(task.generated)


def _software() -> dict[str, str]:
    names = ("wsi-ihc", "torch", "torchmetrics", "numpy", "opencv-python-headless", "pillow")
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

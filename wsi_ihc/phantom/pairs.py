"""A data set of H&E and IHC pairs drawn from the phantom, in the layout of BCI."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsi_ihc.errors import OutputError, SettingsError, StorageError
from wsi_ihc.machine.atomic import give_name
from wsi_ihc.measures.her2 import HER2_SCORES
from wsi_ihc.phantom.field import Field, compress, draw_window, refuse_undrawable
from wsi_ihc.phantom.looks import Look
from wsi_ihc.phantom.optics import Rgb
from wsi_ihc.phantom.section import Section
from wsi_ihc.pyramid.geometry import Region, Size

SEEDS_PER_SET = 1_000_000
"""Each pair has a section of its own: seeds of data sets are this far apart, and pairs count on from there."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """One pair to draw."""

    name: str
    split: str
    section: Section
    seed: int


def draw_pairs(
    folder: str | Path,
    count: int,
    *,
    size: Size,
    mpp: float = 0.5,
    seed: int = 0,
    train_share: float = 0.8,
    misalign_px: float = 0.0,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Draw ``count`` pairs into ``folder``, ``{HE,IHC}/{train,test}/00001_train_3+.png``: scores in turn, random looks.

    ``misalign_px`` moves each IHC by at most that many pixels in both directions, and rotates it by at most 1.5
    degrees, as in consecutive sections; 0 keeps both images on the same pixels. ``progress`` gets 1 for each pair. The
    folder appears when it is complete.

    Raises:
        SettingsError: a value that cannot be drawn.
        OutputError: the folder exists already, or cannot be written.
        StorageError: the disk is full, or refuses.
    """
    refuse_undrawable("0", size.height, size.width, mpp, seed)
    if not 1 <= count < SEEDS_PER_SET:
        raise SettingsError(f"{count} pairs: expected 1 to {SEEDS_PER_SET - 1}")
    if not 0 <= train_share <= 1:
        raise SettingsError(f"share of training pairs {train_share}: expected 0 to 1")
    if not 0 <= misalign_px <= 200:
        raise SettingsError(f"misalignment of {misalign_px} px: expected 0 to 200 px")
    target = Path(folder)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"{target}: is there already; give a new folder")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # a killed run's: its pairs would pass for this one's
    try:
        for stain in ("HE", "IHC"):
            for split in ("train", "test"):
                (part / stain / split).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror}); choose another folder") from None
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(
                lambda plan: _write_pair(part, plan, size, mpp, misalign_px), _plans(count, seed, train_share)
            ):
                if progress:
                    progress(1)
    except OSError as error:
        raise StorageError(f"{target}: writing failed ({error.strerror}); nothing was left behind") from None
    else:
        give_name(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _plans(count: int, seed: int, train_share: float) -> list[_Plan]:
    """The pairs, with scores in turn within each split, numbered across both splits as in BCI."""
    training = round(count * train_share)
    plans = []
    for index in range(count):
        split, place = ("train", index) if index < training else ("test", index - training)
        her2 = HER2_SCORES[place % 4]
        number = seed * SEEDS_PER_SET + index
        plans.append(_Plan(f"{index + 1:05d}_{split}_{her2}.png", split, Section(number, her2), number))
    return plans


def _write_pair(folder: Path, plan: _Plan, size: Size, mpp: float, misalign_px: float) -> None:
    rng = np.random.default_rng([plan.seed, 0xB0])
    look = Look.sample(rng)
    margin = int(np.ceil(misalign_px + 0.03 * max(size))) if misalign_px else 0
    window = draw_window(
        plan.section, Region(-margin, -margin, size.height + 2 * margin, size.width + 2 * margin), mpp, look
    )
    core = Region(margin, margin, *size).slices
    shift = rng.uniform(-misalign_px, misalign_px, 2)
    angle = rng.uniform(-1.5, 1.5) if misalign_px else 0.0
    moved = window.ihc if not misalign_px else _moved(window.ihc, float(shift[0]), float(shift[1]), angle)
    field = compress(Field(np.ascontiguousarray(window.he[core]), np.ascontiguousarray(moved[core])), look)
    for stain, picture in (("HE", field.he), ("IHC", field.ihc)):
        _, encoded = cv2.imencode(".png", picture[..., ::-1])
        (folder / stain / plan.split / plan.name).write_bytes(encoded.tobytes())


def _moved(picture: Rgb, down: float, right: float, degrees: float) -> Rgb:
    """``picture`` rotated about its centre, then shifted ``down`` and ``right`` by pixels."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    matrix[:, 2] += np.array([right, down])
    moved = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.uint8)

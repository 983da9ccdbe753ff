"""Where the generated images come from: a folder that any program filled, or a generator run over the H&E images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ihc.errors import DataSetError, GeneratorError, StorageError
from wsi_ihc.evaluation.images import Task
from wsi_ihc.pairs.folders import Pair, image_files, read_pair

if TYPE_CHECKING:
    from wsi_ihc.generators import Bundle, Stainer

ENDINGS = ("", "_fake_B", "_fake", "_generated", "_pred")
"""Endings that programs append to the name of the image they translated; pix2pix writes ``NAME_fake_B.png``."""

_IN_FLIGHT = 4
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Generated:
    """A task per pair, and what a report says about where the images came from."""

    name: str
    tasks: tuple[Task, ...]
    origin: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def from_predictions(folder: Path, pairs: Sequence[Pair]) -> Generated:
    """Match the images of a folder to the pairs by name.

    Raises:
        DataSetError: no such folder, no images, or a pair without its image.
    """
    if not folder.is_dir():
        raise DataSetError(f"{folder}: no such folder of predictions")
    files = {path.stem: path for path in image_files(folder)}
    if not files:
        raise DataSetError(f"{folder}: no images; expected one per pair, named like its H&E image")
    found = {pair.name: _named(files, pair.name) for pair in pairs}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise DataSetError(
            f"{folder}: {len(missing)} of {len(pairs)} images are missing, first {missing[0]}; "
            "names must be those of the H&E images"
        )
    tasks = tuple(Task(pair, path) for pair in pairs if (path := found[pair.name]))
    unused = len(files) - len(tasks)
    notices = (f"{unused} images in {folder.name} belong to no pair and were not used",) if unused else ()
    origin = {"from": "predictions", "folder": folder.name, "made by": "not known: another program, see its own notes"}
    return Generated(folder.name, tasks, origin, notices)


def _named(files: dict[str, Path], name: str) -> Path | None:
    return next((files[name + ending] for ending in ENDINGS if name + ending in files), None)


def find_bundle(source: str) -> str:
    """The generator a user names: itself, or the bundle inside a training run's folder.

    Raises:
        GeneratorError: a folder that holds no bundle, or several of which none is called best.
    """
    folder = Path(source)
    if not folder.is_dir():
        return source
    bundles = sorted(folder.glob("*.safetensors"))
    best = [path for path in bundles if path.stem == "best"]
    chosen = best or bundles
    if len(chosen) != 1:
        seen = ", ".join(path.name for path in bundles) or "none"
        raise GeneratorError(f"{folder}: expected a run with one bundle or best.safetensors, found {seen}")
    return str(chosen[0])


def from_generator(
    source: str,
    pairs: Sequence[Pair],
    folder: Path,
    *,
    device: str = "auto",
    precision: str = "float32",
    advance: Callable[[], None] | None = None,
) -> Generated:
    """Stain the H&E image of every pair, whole, in eval mode, and keep the results as PNG under ``folder``.

    The network sees the whole image, as in the published code: InstanceNorm then takes the image's own statistics,
    BatchNorm its running ones. An image whose sides do not suit the network is mirrored at its right and lower edge
    and cut again.

    Raises:
        GeneratorError: no such generator. DeviceError: no such device. DataSetError: an image cannot be read.
        StorageError: a result cannot be written.
    """
    from wsi_ihc.generators import load_generator

    bundle = load_generator(find_bundle(source))
    stainer, normalisation = whole_image_stainer(bundle, device=device, precision=precision)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [Task(pair, folder / f"{pair.name}.png") for pair in pairs]
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        writing: deque[Future[None]] = deque()
        for task, he in zip(tasks, read_ahead(pool, _read_he, pairs), strict=True):
            writing.append(pool.submit(_write_png, task.generated, stain_whole(stainer, stainer.align_px, he)))
            if len(writing) > _IN_FLIGHT:
                writing.popleft().result()
            if advance:
                advance()
        for write in writing:
            write.result()
    card = bundle.card
    origin = {
        "from": "generator",
        "generator": card.name,
        "sha256": card.sha256,
        "training data": card.training_data,
        "normalisation": normalisation,
        **stainer.describe(),
    }
    return Generated(card.name, tuple(tasks), origin)


def whole_image_stainer(bundle: Bundle, *, device: str, precision: str) -> tuple[Stainer, str]:
    """The generator as it judges images: what stains, and how its norm layers are fixed, for a report.

    Raises:
        GeneratorError: the weights do not fit. DeviceError: no such device.
    """
    from wsi_ihc.generators import Stainer, fix_normalisation, resolve_mode

    network = bundle.build()
    mode = resolve_mode(network, "auto")
    fixed, _ = fix_normalisation(network, "tile" if mode == "calibrated" else "auto")
    stainer = Stainer(fixed, device=device, precision=precision)
    return stainer, "whole image" if mode == "calibrated" else mode


def stain_whole(
    stainer: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], align_px: int, image: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """One image of any size through a stainer that wants sides in multiples of ``align_px``."""
    height, width = image.shape[:2]
    padding = ((0, -height % align_px), (0, -width % align_px), (0, 0))
    # Mirrored without the edge itself, as the networks' own padding; numpy repeats the mirror where it is short.
    padded = np.pad(image, padding, mode="reflect") if any(after for _, after in padding) else image
    return stainer(padded[None])[0, :height, :width]


def read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[_Item], NDArray[np.uint8]], items: Iterable[_Item]
) -> Iterator[NDArray[np.uint8]]:
    """Images in order, a few of them read before they are wanted."""
    waiting: deque[Future[NDArray[np.uint8]]] = deque()
    for item in items:
        waiting.append(pool.submit(read, item))
        if len(waiting) > _IN_FLIGHT:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_he(pair: Pair) -> NDArray[np.uint8]:
    return read_pair(pair)[0]


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    try:
        Image.fromarray(image).save(path, compress_level=1)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from None

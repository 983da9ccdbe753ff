"""Fixtures that many tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import settings
from numpy.typing import NDArray

from wsi_ihc.conversion.store import TileStore
from wsi_ihc.output.ometiff import Provenance, write_ome_tiff
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.pyramid.layers import STAINED

if TYPE_CHECKING:
    import torch

    from wsi_ihc.generators.core_network import CoreNetwork
    from wsi_ihc.generators.inference import Engine

# A test says what is right, not how fast a busy machine is.
settings.register_profile("wsi-ihc", deadline=None)
settings.load_profile("wsi-ihc")

PROCESSORS = {
    "AMX": frozenset({"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_fp16", "amx_tile"}),
    "AVX-512 BF16": frozenset({"avx2", "avx512f", "avx512_bf16"}),
    "AVX2": frozenset({"avx2"}),
}
"""What the processors that the program knows apart can do, as Linux names it."""

SHARED_DATA = Path(os.environ.get("WSI_IHC_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def own_log_level() -> Iterator[None]:
    """A command that runs in this process with --quiet leaves the next test's log as it was."""
    logger = logging.getLogger("wsi_ihc")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides beside the checkout (or ``WSI_IHC_TEST_DATA``); skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(
            f"real slides are not on this machine: {SHARED_DATA.name}/ beside the checkout or WSI_IHC_TEST_DATA"
        )
    return SHARED_DATA


@pytest.fixture(scope="session")
def small_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled pyramid of 1,700 x 1,300 px at 0.5 um/px: an island of stained noise on glass that is not quite white."""
    path = tmp_path_factory.mktemp("slides") / "small.tiff"
    write_slide(path, stained_island(1300, 1700))
    return path


def stained_island(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pink and violet texture inside an ellipse, glass around it."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((height // 16 + 2, width // 16 + 2, 2)).astype(np.float32)
    haematoxylin, eosin = np.moveaxis(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), -1, 0)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = (rows**2 + columns**2 < 0.7)[..., None]
    density = haematoxylin[..., None] * (0.65, 0.70, 0.29) + eosin[..., None] * (0.07, 0.99, 0.11)
    pixels = 245 * np.exp(-np.where(inside, 0.2 + density, 0)) + generator.normal(0, 1.5, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_slide(path: Path, pixels: NDArray[np.uint8], mpp: float | None = 0.5, levels: int = 2) -> None:
    """A generic tiled TIFF pyramid, without loss."""
    resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "centimeter"} if mpp else {}
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            tiff.write(
                np.ascontiguousarray(pixels[:: 4**level, :: 4**level]),
                tile=(256, 256),
                compression="zlib",
                photometric="rgb",
                subfiletype=int(level > 0),
                **(resolution if level == 0 else {}),
            )


def provenance(size: Size, **changes: Any) -> Provenance:
    """What an output of ``size`` px says of itself when nothing but its pixels was asked for."""
    facts = {
        "source_name": "slide.svs",
        "source_width": size.width,
        "source_height": size.height,
        "reader": "memory",
        "level": 0,
        "scale": 1.0,
        "mpp": 0.5,
        "generator": "identity",
        "normalisation": "running",
        "tissue_source": "none",
        "tissue_fraction": 1.0,
        "halo_px": 0,
        "device": "cpu",
        "precision": "float32",
        "compression": "jpeg",
    }
    return Provenance(**facts | changes)


def write_store(store: TileStore, path: Path, provenance: Provenance) -> Path:
    """The finished blocks of ``store`` as an OME-TIFF."""
    with store.finished_pyramids() as pyramids:
        return write_ome_tiff(pyramids[STAINED], path, provenance)


@pytest.fixture(scope="session")
def tiny_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of small random generators by name: resnet and unet, BatchNorm and InstanceNorm."""
    from wsi_ihc.generators import Architecture, GeneratorCard, build_network, initialise, save_bundle

    folder = tmp_path_factory.mktemp("bundles")
    made = {}
    for kind in ("resnet", "unet"):
        for norm in ("batch", "instance"):
            architecture = Architecture(kind=kind, norm=norm, blocks=2, downs=3, base_channels=8, dropout=False)
            network = initialise(build_network(architecture), 7)
            for parameter in network.parameters():
                # Weights as small as a new network's would leave every output grey.
                parameter.data *= 4
            name = f"{kind}-{norm}"
            card = GeneratorCard(name=name, architecture=architecture, mpp=0.5, stain="HER2 IHC")
            made[name] = folder / f"{name}.safetensors"
            save_bundle(made[name], card, network.state_dict())
    return made


@pytest.fixture(scope="module", params=[(name, openvino) for name in PROCESSORS for openvino in (True, False)], ids=str)
def every_processor(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each kind of processor in turn, with OpenVINO and without; torch does the arithmetic that OpenVINO would do."""
    from wsi_ihc.generators.processor import Processor

    name, openvino = request.param
    processor = Processor(PROCESSORS[name], openvino)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_ihc.generators.device.this_processor", lambda: processor)
        patch.setattr("wsi_ihc.generators.inference.OpenVinoEngine", _torch_for_openvino)
        yield


def _torch_for_openvino(core: CoreNetwork, dtype: torch.dtype, window_px: int) -> Engine:
    """Float32 weights and the arithmetic of ``dtype``, as OpenVINO has it."""
    import torch

    def engine(windows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            cores: NDArray[np.uint8] = core(torch.from_numpy(np.ascontiguousarray(windows))).numpy()
        return cores

    return engine

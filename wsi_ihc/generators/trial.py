"""Tries an engine on this machine: a small generator stains one window, as commands would use it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from wsi_ihc.generators.inference import Stainer
from wsi_ihc.generators.networks import Architecture, build_network, initialise
from wsi_ihc.generators.normalisation import fix_normalisation

_SIDE_PX = 64


def try_engine(
    mode: Literal["calibrated", "tile"] = "calibrated", *, precision: str = "auto", backend: str = "auto"
) -> Stainer:
    """Stains one window with a small InstanceNorm generator on the best device, and returns the stainer.

    An engine that does not suit the processor can crash the process here.

    Args:
        mode: how the norm layers are fixed: ``calibrated`` folds them, as in ``convert``; ``tile`` does not, as in
            ``evaluate``.

    Raises:
        DeviceError: the engine is not available, or fails.
    """
    window = np.random.default_rng(0).integers(0, 256, (1, _SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)
    network = initialise(build_network(Architecture(kind="resnet", norm="instance", blocks=1, base_channels=8)), seed=0)
    fixed, _ = fix_normalisation(network, mode, [window])
    stainer = Stainer(fixed, precision=precision, backend=backend)
    stainer(window)
    return stainer

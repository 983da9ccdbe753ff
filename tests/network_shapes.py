"""Every shape of network that can be learnt, for tests that must hold for all of them."""

from __future__ import annotations

from typing import Any

import pytest

SHAPES: dict[str, dict[str, Any]] = {
    "resnet": {"kind": "resnet"},
    "resnet, resize": {"kind": "resnet", "upsampling": "resize"},
    "resnet, skips": {"kind": "resnet", "skips": True},
    "resnet, bilinear, skips": {"kind": "resnet", "upsampling": "bilinear", "skips": True},
    "resnet, blurred": {"kind": "resnet", "downsampling": "blurred", "upsampling": "blurred"},
    "resnet, zero padding": {"kind": "resnet", "padding": "zero"},
    "unet": {"kind": "unet"},
    "unet, attention": {"kind": "unet", "attention": True},
}
"""Fields of an ``Architecture`` by a name for people."""

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)

"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(os.environ.get("WSI_IHC_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides beside the checkout (or ``WSI_IHC_TEST_DATA``); skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real slides are not on this machine: {SHARED_DATA.name}/ beside the checkout or WSI_IHC_TEST_DATA")
    return SHARED_DATA

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_ihc.conversion.staining import fade_to_glass, use_threads
from wsi_ihc.pyramid.codecs import WHITE, Colour


@pytest.fixture
def _torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_torch_threads")
def test_every_calling_thread_computes_on_the_same_number_of_threads() -> None:
    """Kernels, and so the order of sums, follow this number: a worker's own would show in the last bit."""

    def seen(count: int) -> int:
        use_threads(count)
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        assert [pool.submit(seen, count).result() for count in (3, 1) for pool in (first, second)] == [3, 3, 1, 1]


pixels = arrays(np.uint8, (5, 4, 3))


@given(pixels, arrays(np.bool_, (5, 4)))
def test_glass_is_white_and_tissue_untouched(core: np.ndarray, tissue: np.ndarray) -> None:
    faded = fade_to_glass(core, tissue.astype(np.float32))
    assert (faded[~tissue] == 255).all()
    np.testing.assert_array_equal(faded[tissue], core[tissue])


@given(pixels, st.floats(0, 1, width=32))
def test_the_soft_edge_lies_between(core: np.ndarray, alpha: float) -> None:
    faded = fade_to_glass(core, np.full((5, 4), alpha, np.float32)).astype(float)
    assert abs(faded - (255 - alpha * (255.0 - core))).max() <= 0.501


@pytest.mark.parametrize("order", ["C", "F"])
def test_full_coverage_is_the_core_itself(order: str) -> None:
    core = np.asarray(np.arange(60, dtype=np.uint8).reshape(5, 4, 3), order=order)
    np.testing.assert_array_equal(fade_to_glass(core, None), core)


@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.sampled_from([WHITE, (246, 245, 240), (0, 90, 255)]))
def test_fading_is_the_plain_formula_in_every_band(height: int, seed: int, glass: Colour) -> None:
    random = np.random.default_rng(seed)
    core = random.integers(0, 256, (height + 8, 20, 3), dtype=np.uint8)[4:-4, 3:-3]
    coverage = random.choice(np.float32([0, 0.25, 0.5, 0.7, 1]), core.shape[:2])
    expected = glass + np.rint((core - np.float32(glass)) * coverage[..., None])
    np.testing.assert_array_equal(fade_to_glass(core, coverage, glass), expected.astype(np.uint8))

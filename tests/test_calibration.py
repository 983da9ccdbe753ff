import numpy as np

from wsi_ihc.config import TissueSettings
from wsi_ihc.conversion.calibration_windows import calibration_regions, read_calibration_windows
from wsi_ihc.pyramid.geometry import Size
from wsi_ihc.slides import MemorySlide, SlideView
from wsi_ihc.tissue import TissueMask, find_tissue


def _scene(tissue: np.ndarray) -> tuple[SlideView, TissueMask]:
    size = Size(*(16 * length for length in tissue.shape))
    slide = MemorySlide(np.full((*size, 3), 200, np.uint8), mpp=0.5)
    return SlideView.at(slide, 0.5), TissueMask(tissue, 16.0, size)


def test_windows_lie_on_tissue_inside_the_plane_without_overlap() -> None:
    tissue = np.zeros((60, 60), bool)
    tissue[5:40, 10:50] = True
    view, mask = _scene(tissue)
    regions = calibration_regions(view, mask, count=6, side_px=128)
    assert len(regions) == 6
    for number, region in enumerate(regions):
        assert mask.fraction(region) >= 0.4
        assert region.top >= 0 <= region.left
        assert region.bottom <= view.size.height
        assert region.right <= view.size.width
        assert all(region.intersection(other).area == 0 for other in regions[:number])
    assert regions == calibration_regions(view, mask, count=6, side_px=128)


def test_a_slide_smaller_than_a_window_gives_one() -> None:
    view, mask = _scene(np.ones((4, 4), bool))
    windows = read_calibration_windows(view, mask, count=6, side_px=128)
    assert [window.shape for window in windows] == [(1, 128, 128, 3)]


def test_tissue_thinner_than_a_window_is_still_sampled() -> None:
    tissue = np.zeros((60, 60), bool)
    tissue[30, 10:50] = True
    view, mask = _scene(tissue)
    regions = calibration_regions(view, mask, count=4, side_px=128)
    assert regions
    assert all(mask.fraction(region) > 0 for region in regions)


def test_where_nobody_looked_for_tissue_windows_are_all_over_the_plane() -> None:
    view, _ = _scene(np.ones((40, 160), bool))
    regions = calibration_regions(view, find_tissue(view, TissueSettings(source="none")), count=16, side_px=64)
    assert len(regions) == 16
    tops, lefts = ({region.top // 160 for region in regions}, {region.left // 640 for region in regions})
    assert tops == lefts == {0, 1, 2, 3}

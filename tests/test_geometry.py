from hypothesis import given
from hypothesis import strategies as st

from wsi_ihc.pyramid.geometry import Region

coordinates = st.integers(-50, 50)
lengths = st.integers(0, 50)
regions = st.builds(Region, coordinates, coordinates, lengths, lengths)


def _pixels(region: Region) -> set[tuple[int, int]]:
    rows, columns = range(region.top, region.bottom), range(region.left, region.right)
    return {(row, column) for row in rows for column in columns}


@given(regions, regions)
def test_intersection_holds_the_common_pixels(a: Region, b: Region) -> None:
    common = a.intersection(b)
    assert _pixels(common) == _pixels(a) & _pixels(b)
    assert common.area == len(_pixels(common))


@given(regions, st.integers(0, 9))
def test_expanded_adds_the_margin_on_every_side(region: Region, margin: int) -> None:
    wide = region.expanded(margin)
    assert (wide.top, wide.left) == (region.top - margin, region.left - margin)
    assert (wide.bottom, wide.right) == (region.bottom + margin, region.right + margin)


@given(regions, regions)
def test_relative_regions_index_the_origin_s_array(region: Region, origin: Region) -> None:
    moved = region.relative_to(origin)
    assert (moved.top + origin.top, moved.left + origin.left) == (region.top, region.left)
    assert moved.size == region.size

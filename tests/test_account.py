"""The account of a run, and how warnings travel with an output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ihc.conversion.account import RunAccount, numbered, refuse_doubts
from wsi_ihc.errors import UnsupportedSlideError
from wsi_ihc.slides import MemorySlide
from wsi_ihc.slides.notice_kinds import slide_notices
from wsi_ihc.slides.notices import Notice
from wsi_ihc.slides.pixel_size import settle

STAIN, NOTE = Notice("stain", "only 3% pink"), Notice("reader", "read by tiffslide", "note")

accounts = st.builds(
    RunAccount,
    st.dictionaries(st.text(max_size=5), st.floats(0, 1e6), max_size=3),
    st.floats(0, 1e6),
    st.integers(0, 10**6),
    st.floats(0, 1e6),
    st.integers(0, 8192),
    st.sampled_from(["cpu", "cuda"]),
    st.lists(st.sampled_from([STAIN, NOTE]), max_size=3).map(tuple),
)


@given(accounts)
def test_a_sidecar_gives_back_what_was_written(account: RunAccount) -> None:
    assert RunAccount.from_json(json.loads(json.dumps(account.to_json()))) == account


@pytest.mark.parametrize("told", [None, [], {"blocks": "many"}, {"notices": [{"code": 1}]}, {"notices": 3}])
def test_a_damaged_account_is_never_believed(told: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        RunAccount.from_json(told)


def test_keys_of_other_versions_and_plain_texts_are_read() -> None:
    account = RunAccount.from_json({"blocks": 3, "host": "x", "notices": ["pixel size as given"]})
    assert (account.blocks, [str(notice) for notice in account.notices]) == (3, ["pixel size as given"])


def test_the_total_counts_stages_and_not_their_parts() -> None:
    assert RunAccount({"prepare": 1.0, "stain": 2.0, "stain: read": 5.0, "check": 0.5}).total_s == 3.5


def test_strict_refuses_warnings_and_lets_notes_pass() -> None:
    refuse_doubts(Path("a.svs"), [NOTE])
    with pytest.raises(UnsupportedSlideError, match=r"a\.svs: refused by --strict: only 3% pink"):
        refuse_doubts(Path("a.svs"), [NOTE, STAIN])


def test_every_notice_has_a_name_of_its_own() -> None:
    notices = (Notice("slide", "first"), Notice("slide", "second"), STAIN)
    assert numbered(notices) == {"slide": "first", "slide 2": "second", "stain": "only 3% pink"}


@pytest.mark.parametrize(
    ("stated", "given", "level"), [(None, 0.5, "note"), ((0.25, 0.25), 0.5, "warning"), ((1e9, 1e9), None, "warning")]
)
def test_only_a_pixel_size_that_contradicts_the_file_is_a_doubt(
    stated: tuple[float, float] | None, given: float | None, level: str
) -> None:
    slide = MemorySlide(np.zeros((8, 8, 3), np.uint8), notices=settle(stated, given).notices)
    assert [(notice.code, notice.level) for notice in slide_notices(slide)] == [("pixel-size", level)]


def test_every_kind_of_notice_has_a_code() -> None:
    texts = ("read with tiffslide, because others cannot", "level 2 of the file is not used: black", "something else")
    slide = MemorySlide(np.zeros((8, 8, 3), np.uint8), notices=texts)
    assert [notice.code for notice in slide_notices(slide)] == ["reader", "level", "slide"]

"""Text of strangers: whatever a name holds, it is shown as text and controls nothing."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ihc.cli import _run
from wsi_ihc.machine.regular_files import is_regular, open_to_append, read_regular
from wsi_ihc.machine.text import PrintableRecord, json_text, printable, spreadsheet_cell

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
"""Control characters and lone surrogates among them."""


@given(ANY_TEXT)
def test_printable_text_is_one_line_that_controls_nothing(text: str) -> None:
    shown = printable(text)
    shown.encode()  # no lone surrogates
    assert len((shown + "|").splitlines()) == 1
    assert not any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
    assert printable(shown) == shown


@pytest.mark.parametrize("name", ["Präparat Ä & Co 'x' <b>.svs", "乳腺 №7.svs", "C:\\a\\b.svs", "नमस्ते", "🔬", "\ue000"])
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert printable(name) == name


def test_escapes_say_what_was_there() -> None:
    assert printable("a\nb\x1b[31m\u202egnp\udce4\x9b") == r"a\nb\x1b[31m\u202egnp\xe4\x9b"


@given(ANY_TEXT)
def test_no_cell_is_a_formula(text: str) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow([spreadsheet_cell(text), 1])
    [[cell, _]] = csv.reader(io.StringIO(stream.getvalue()))
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))


@pytest.mark.parametrize("value", [-1.5, 3, None, True])
def test_numbers_stay_numbers_in_a_spreadsheet(value: object) -> None:
    assert spreadsheet_cell(value) is value


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3)))
def test_json_comes_back_as_it_was_and_controls_nothing(value: object) -> None:
    text = json_text(value)
    # A pair of lone surrogates is one character for JSON, which knows no difference.
    assert json.loads(text) == json.loads(json.dumps(value))
    assert all(printable(line) == line for line in text.split("\n"))


def test_a_log_message_is_one_line() -> None:
    record = PrintableRecord("wsi_ihc", logging.WARNING, "f", 1, "%s: bad", ("a\nwsi-ihc: done\x1b[2J",), None)
    assert record.getMessage() == r"a\nwsi-ihc: done\x1b[2J: bad"


def test_an_error_cannot_forge_a_second_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = tmp_path / "a\nwsi-ihc: done\x1b[2J\udce4.svs"
    assert _run(["info", str(name)]) == 3
    [line] = capsys.readouterr().err.splitlines()
    assert r"a\nwsi-ihc: done\x1b[2J\xe4.svs: cannot be read" in line


@pytest.mark.parametrize("closed", [">&-", "2>&-", "| true"])
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_a_closed_stream_is_no_traceback(closed: str, locale: str) -> None:
    command = f"{sys.executable} -P -m wsi_ihc weights list {closed}"
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "LC_ALL": locale}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_our_own_files_are_regular_files(tmp_path: Path) -> None:
    victim, link, pipe = tmp_path / "victim", tmp_path / "link", tmp_path / "pipe"
    victim.write_text("precious")
    link.symlink_to(victim)
    os.mkfifo(pipe)
    second = tmp_path / "second"
    os.link(victim, second)
    for path in (link, pipe):
        assert not is_regular(path)
        with pytest.raises(OSError, match=r"."):
            read_regular(path)
    for path in (link, pipe, second, tmp_path / "new"):
        with os.fdopen(open_to_append(path), "w") as stream:
            stream.write("ours")
        assert read_regular(path) == b"ours"
    assert victim.read_text() == "precious"
    with pytest.raises(OSError, match="larger"):
        read_regular(victim, limit=3)
    with pytest.raises(OSError, match=r"."):
        open_to_append(tmp_path)

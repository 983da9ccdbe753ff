"""Faults of the disk, of the slide and of the store. Each trial returns its line of the table."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from trials.faults.kills import Ground, Row, row
from trials.faults.processes import Conversion, blocks_of, convert, without_paths

_BLOCKS = 75
"""Of the slide, with tissue."""


def full_disk(ground: Ground) -> Row:
    """The disk is full at three moments: early and late in the blocks, and while the file is written."""
    ended, same, lines = [], True, []
    part = _killed(ground.slide, ground.output("full"), blocks=60)
    store_bytes = sum(512 * file.stat().st_blocks for file in part.store.rglob("*")) / part.blocks() * _BLOCKS
    for number, room in enumerate((0.3 * store_bytes, 0.8 * store_bytes, store_bytes + 0.6 * len(ground.truth))):
        with _small_disk(ground, int(room)) as (folder, enlarge, limit):
            output = folder / f"full{number}.ome.tiff"
            ended.append(Conversion.start(ground.slide, output, before=limit).end())
            same &= not output.exists()
            lines.append(ended[-1].line)
            enlarge()
            same &= ground.reached(convert(ground.slide, output), output)
    return row("disk full, at three moments; then made larger", ended, lines, 5, same, "the same command continued")


def slide_cut(ground: Ground, *options: str, reader: str = "tiff") -> Row:
    """The slide is cut in half while it is read, then put back."""
    slide, output = _own_slide(ground, f"cut-by-{reader}"), ground.output(f"cut-by-{reader}")
    running = Conversion.start(slide, output, *options)
    running.wait_for_blocks(2)
    os.truncate(slide, slide.stat().st_size // 8)
    ended = running.end()
    kept = running.blocks()
    refused = convert(slide, output, *options)
    shutil.copyfile(ground.slide, slide)
    same = refused.code == 3 and 0 < kept <= running.blocks() and convert(slide, output, *options).code == 0
    same &= _same_as_alone(output, slide, *options)
    then = f"while it is cut the command says `{without_paths(refused.line)}`; put back, it continued"
    return row(f"slide cut short while it is read ({reader}), then put back", [ended], [ended.line], 3, same, then)


def slide_cut_openslide(ground: Ground) -> Row:
    """The same through OpenSlide, whose errors stay for good."""
    return slide_cut(ground, "--reader", "openslide", reader="openslide")


def slide_vanished(ground: Ground) -> Row:
    """Killed, the slide moved away, tried, and put back."""
    slide, output = _own_slide(ground, "vanished"), ground.output("vanished")
    kept = _killed(slide, output).blocks()
    away = slide.rename(slide.with_suffix(".away"))
    ended = convert(slide, output)
    same = blocks_of(output) == kept > 0
    away.rename(slide)
    same &= ground.reached(convert(slide, output), output)
    return row(
        "slide gone between kill and resume, then put back", [ended], [ended.line], 3, same, "the store was kept"
    )


def slide_replaced(ground: Ground) -> Row:
    """Killed, and another slide put under the name."""
    slide, output = _own_slide(ground, "replaced"), ground.output("replaced")
    _killed(slide, output)
    _other_slide(ground, slide)
    ended = convert(slide, output, quiet=False)
    same = ended.code == 0 and "starting afresh" in " ".join(ended.said)
    line = next((line for line in ended.said if "starting afresh" in line), "").removeprefix("wsi-ihc: ")
    same &= _same_as_alone(output, slide)
    return row("another slide under the name between kill and resume", [ended], [line], 0, same, "nothing was mixed")


def slide_exchanged(ground: Ground) -> Row:
    """Another slide is put under the name while the first is read."""
    slide, output = _own_slide(ground, "exchanged"), ground.output("exchanged")
    running = Conversion.start(slide, output)
    running.wait_for_blocks(2)
    _other_slide(ground, slide)
    ended = running.end()
    same = not output.exists() and convert(slide, output).code == 0 and _same_as_alone(output, slide)
    return row(
        "another slide under the name while it is read", [ended], [ended.line], 3, same, "the next run began afresh"
    )


def store_deleted(ground: Ground) -> Row:
    """The store is removed under the run."""
    output = ground.output("deleted")
    running = Conversion.start(ground.slide, output)
    running.wait_for_blocks(20)
    shutil.rmtree(running.store, ignore_errors=True)
    ended = running.end()
    same = not output.exists() and ground.reached(convert(ground.slide, output), output)
    return row("store deleted under the run", [ended], [ended.line], 5, same, "the same command began afresh")


def marks_deleted(ground: Ground) -> Row:
    """Some finished blocks are removed from the store while the run is at work."""
    output = ground.output("unmarked")
    running = Conversion.start(ground.slide, output)
    running.wait_for_blocks(30)
    for mark in list((running.store / "blocks").iterdir())[:10]:
        mark.unlink(missing_ok=True)
    ended = running.end()
    same = not output.exists() and ground.reached(convert(ground.slide, output), output)
    return row("some blocks' files deleted under the run", [ended], [ended.line], 5, same, "the same command went on")


def blocks_damaged(ground: Ground) -> Row:
    """After a kill, files of finished blocks are emptied, cut, removed and overwritten in the middle."""
    ways: dict[str, Callable[[Path], None]] = {
        "emptied": lambda file: file.write_bytes(b""),
        "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
        "removed": lambda file: file.unlink(),
        "overwritten in the middle": _overwrite_middle,
    }
    ended, same, lines = [], True, []
    for name, way in ways.items():
        output = ground.output("damaged")
        store = _killed(ground.slide, output, blocks=20).store
        files = [file for file in sorted((store / "blocks").iterdir()) if file.name[0].isdigit()]
        way(ground.chance.choice(files))
        first = convert(ground.slide, output)
        ended.append(first)
        lines.append(first.line)
        if first.code:
            same &= convert(ground.slide, output).code == 0
        if output.read_bytes() != ground.truth:
            same = False
            lines.append(f"NOT NOTICED: a block's file {name}")
        output.unlink()
    return row(
        "a finished block's file emptied, cut, removed, or overwritten in the middle, between kill and resume",
        ended, lines, 5, same, "the next run made that block anew",
    )  # fmt: skip


def two_runs(ground: Ground) -> Row:
    """The same command twice at a time."""
    output = ground.output("twice")
    first = Conversion.start(ground.slide, output)
    first.wait_for_blocks(1)
    first.signal(signal.SIGSTOP)
    ended = convert(ground.slide, output)
    first.signal(signal.SIGCONT)
    same = ground.reached(first.end(), output)
    return row(
        "the same command started twice",
        [ended],
        [ended.line],
        6,
        same,
        "the first was undisturbed",
    )


@contextmanager
def _small_disk(ground: Ground, room: int) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A folder on a disk of ``room`` bytes, what makes it larger, and what a conversion does before it begins.

    Without the right to mount, files are limited to a size instead: only the output itself can be too large then.
    """
    folder = ground.folder / "small-disk"
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        if mounted.returncode == 0:
            larger = ["mount", "-o", "remount,size=1g", str(folder)]
            yield folder, partial(subprocess.run, larger, check=True), lambda: None
        else:
            size = len(ground.truth) // 2
            yield folder, lambda: None, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            shutil.rmtree(folder)


def _own_slide(ground: Ground, name: str) -> Path:
    """A copy that may come to harm, under the same name, which is in the output's provenance."""
    folder = ground.folder / name
    folder.mkdir(exist_ok=True)
    return Path(shutil.copyfile(ground.slide, folder / ground.slide.name))


def _other_slide(ground: Ground, slide: Path) -> None:
    """Puts another slide under the name of ``slide``, at once."""
    other = slide.with_suffix(".other")
    options = ["--her2", "3+", "--size", "4000x4500", "--seed", "9", "--sparse", "1", "--quiet", "-o", str(other)]
    made = ground.folder / "other.tiff"
    if not made.exists():
        command = [sys.executable, "-m", "wsi_ihc", "phantom", *options[:-1], str(made)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.copyfile(made, other)
    other.replace(slide)


def _same_as_alone(output: Path, slide: Path, *options: str) -> bool:
    """Whether ``output`` is what an undisturbed run makes of ``slide`` as it is now."""
    alone = slide.parent / "alone.ome.tiff"
    ended = convert(slide, alone, *options)
    return ended.code == 0 and alone.read_bytes() == output.read_bytes()


def _killed(slide: Path, output: Path, *, blocks: int = 5) -> Conversion:
    """A conversion killed when so many blocks are finished."""
    running = Conversion.start(slide, output)
    running.wait_for_blocks(blocks)
    running.kill()
    running.end()
    return running


def _overwrite_middle(file: Path) -> None:
    """What a disk that forgets a sector leaves: zeros in the middle, everything else as it was."""
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(bytes(64))

"""Memory that is used again: never while anybody still looks at it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from wsi_ihc.machine.pixel_memory import PixelMemory


def address(pixels: np.ndarray) -> int:
    return pixels.__array_interface__["data"][0]


def test_the_memory_of_a_dead_array_is_used_again() -> None:
    memory = PixelMemory()
    first = memory.array((8, 8, 3))
    place = address(first)
    del first
    again = memory.array((4, 16, 3))
    assert address(again) == place
    assert again.shape == (4, 16, 3)
    assert again.flags.writeable


def test_a_view_of_any_kind_keeps_the_memory() -> None:
    memory = PixelMemory()
    pixels = memory.array((8, 8, 3))
    pixels[:] = 7
    views = [pixels[2:4, 1:], pixels.reshape(-1)[5:], torch.from_numpy(pixels[None])[0], memoryview(pixels)]
    del pixels
    while views:
        assert address(memory.array((8, 8, 3))) != address(np.asarray(views[-1]))
        memory.array((8, 8, 3)).fill(0)
        assert (np.asarray(views[-1]) == 7).all()
        views.pop()


def test_another_size_gets_memory_of_its_own() -> None:
    memory = PixelMemory()
    memory.array((8, 8, 3))
    assert memory.array((9, 8, 3)).size == 9 * 8 * 3


def test_no_more_is_kept_than_allowed() -> None:
    memory = PixelMemory(spare=2)
    held = [memory.array((8, 8, 3)) for _ in range(5)]
    del held
    assert len(memory._free) == 2


def test_threads_never_share_an_array() -> None:
    memory = PixelMemory()

    def work(value: int) -> bool:
        for _ in range(300):
            pixels = memory.array((16, 16, 3))
            pixels.fill(value)
            if not (pixels == value).all():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))

"""How batches become tasks."""

from __future__ import annotations

from collections.abc import Sequence

import psutil
from hypothesis import given
from hypothesis import strategies as st

from wsi_ihc.conversion.cluster import own_cluster
from wsi_ihc.conversion.executors import _Tasks
from wsi_ihc.conversion.plan import Batch
from wsi_ihc.conversion.staining import BatchReport


def took(batch_s: float, count: int = 1) -> list[BatchReport]:
    return [BatchReport(1, batch_s / 4, 7.0, batch_s / 2, batch_s / 4)] * count


def batches(count: int) -> list[Batch]:
    return [((0, column),) for column in range(count)]


@given(st.integers(0, 200), st.lists(st.floats(0, 10), max_size=50))
def test_every_batch_is_in_one_task(count: int, seconds: Sequence[float]) -> None:
    tasks, taken = _Tasks(batches(count)), []
    for task in tasks:
        taken += task
        if seconds:
            tasks.learn(took(seconds[len(taken) % len(seconds)]))
    assert taken == batches(count)


def test_small_batches_go_together_and_large_ones_alone() -> None:
    tasks = _Tasks(batches(100))
    assert len(next(tasks)) == 1
    tasks.learn(took(0.05))
    assert len(next(tasks)) == 5
    tasks.learn(took(0.001, 5))
    assert len(next(tasks)) == 16
    tasks.learn(took(4.0, 16))
    assert len(next(tasks)) == 1


def test_no_socket_listens() -> None:
    def listening() -> set[int]:
        return {entry.laddr.port for entry in psutil.Process().net_connections() if entry.status == "LISTEN"}

    before = listening()
    with own_cluster(1) as cluster:
        assert list(cluster.run(abs, [-3])) == [3]
        assert listening() <= before

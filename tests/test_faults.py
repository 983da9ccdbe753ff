"""What may go wrong while a slide is stained: nothing is mixed, nothing is lost, and the line says what to do."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dask
import pytest
from dask.distributed import Client, LocalCluster, WorkerPlugin

from tests.conftest import stained_island, write_slide
from wsi_ihc.config import ConversionSettings, load_settings
from wsi_ihc.conversion.cluster import Cluster, cluster_at, own_cluster
from wsi_ihc.conversion.executors import Executor, run_dask
from wsi_ihc.conversion.plan import Batch
from wsi_ihc.conversion.staining import BatchReport, StainingJob
from wsi_ihc.convert import convert_slide
from wsi_ihc.errors import ClusterError, DeviceError, StorageError, UnreadableSlideError


def _settings(**options: object) -> ConversionSettings:
    chosen = {"generator.name": "identity", "tiling.core_px": 512, "tissue.source": "none"}
    return load_settings(ConversionSettings, None, chosen | {key.replace("__", "."): options[key] for key in options})


@pytest.fixture
def slide(small_slide: Path, tmp_path: Path) -> Path:
    """A copy that may come to harm, 12 blocks."""
    return Path(shutil.copyfile(small_slide, tmp_path / "slide.tiff"))


@pytest.fixture
def truth(slide: Path, tmp_path: Path) -> bytes:
    return convert_slide(slide, tmp_path / "undisturbed.ome.tiff", _settings()).output.read_bytes()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.ome.tiff"


def disturbed(after: int, event: Callable[[], object]) -> Executor:
    """Stains as usual, but ``event`` happens once, when so many batches are done."""

    def run(job: StainingJob, batches: Sequence[Batch]) -> Iterator[BatchReport]:
        for done, report in enumerate(run_dask(job, batches), start=1):
            yield report
            if done == after:
                event()

    return run


def _blocks(output: Path) -> int:
    return sum(name[0].isdigit() for name in os.listdir(f"{output}.blocks.zarr/blocks"))


class Cut(Exception):
    """Ends a run in the middle."""


def _cut() -> None:
    raise Cut


class TestSlide:
    def test_cut_short_while_it_is_read(self, slide: Path, truth: bytes, output: Path) -> None:
        whole = slide.read_bytes()
        executor = disturbed(1, lambda: os.truncate(slide, 4096))
        with pytest.raises(UnreadableSlideError, match="bytes are there") as caught:
            convert_slide(slide, output, _settings(compute__threads=1), executor=executor)
        assert "\n" not in str(caught.value)
        kept = _blocks(output)
        with pytest.raises(UnreadableSlideError):
            convert_slide(slide, output, _settings())
        assert _blocks(output) == kept > 0
        slide.write_bytes(whole)
        assert convert_slide(slide, output, _settings()).output.read_bytes() == truth

    def test_gone_before_the_run_is_continued(self, slide: Path, truth: bytes, output: Path) -> None:
        executor = disturbed(5, _cut)
        with pytest.raises(Cut):
            convert_slide(slide, output, _settings(), executor=executor)
        kept = _blocks(output)
        away = slide.rename(slide.with_suffix(".away"))
        with pytest.raises(UnreadableSlideError, match="check the path"):
            convert_slide(slide, output, _settings())
        assert _blocks(output) == kept >= 5
        away.rename(slide)
        assert convert_slide(slide, output, _settings()).output.read_bytes() == truth

    def test_another_one_before_the_run_is_continued(
        self,
        slide: Path,
        output: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        executor = disturbed(5, _cut)
        with pytest.raises(Cut):
            convert_slide(slide, output, _settings(), executor=executor)
        write_slide(slide, stained_island(1300, 1700, seed=1))
        report = convert_slide(slide, output, _settings())
        assert any("starting from the beginning: source changed" in message for message in caplog.messages)
        alone = convert_slide(slide, output.with_name("alone.ome.tiff"), _settings()).output
        assert report.output.read_bytes() == alone.read_bytes()

    def test_another_one_while_it_is_read(self, slide: Path, output: Path) -> None:
        other = slide.with_suffix(".other")
        write_slide(other, stained_island(1300, 1700, seed=1))
        executor = disturbed(3, lambda: other.replace(slide))
        with pytest.raises(UnreadableSlideError, match="changed while it was read"):
            convert_slide(slide, output, _settings(), executor=executor)
        assert not output.exists()
        report = convert_slide(slide, output, _settings())
        alone = convert_slide(slide, output.with_name("alone.ome.tiff"), _settings()).output
        assert report.output.read_bytes() == alone.read_bytes()


class TestStore:
    @pytest.mark.parametrize("lost", ["everything", "marks"])
    def test_deleted_under_the_run(
        self,
        lost: str,
        slide: Path,
        truth: bytes,
        output: Path,
    ) -> None:
        """Without its mark a block would be white glass."""
        store = Path(f"{output}.blocks.zarr")

        def delete() -> None:
            if lost == "everything":
                shutil.rmtree(store, ignore_errors=True)
            else:
                for mark in list((store / "blocks").glob("[0-9]*"))[:3]:
                    mark.unlink()

        executor = disturbed(7, delete)
        with pytest.raises(StorageError, match="vanished") as caught:
            convert_slide(slide, output, _settings(), executor=executor)
        assert "\n" not in str(caught.value)
        assert not output.exists()
        assert convert_slide(slide, output, _settings()).output.read_bytes() == truth


def test_a_machine_that_slept_does_not_take_its_own_threads_for_dead() -> None:
    """dask judges heartbeats by the time of day; without its only worker the run would wait for ever."""
    with own_cluster(threads=1) as cluster:
        assert cluster.client.cluster.scheduler.worker_ttl is None
        assert sorted(cluster.run(abs, [-1, -2, 3])) == [1, 2, 3]


def test_a_worker_of_another_version_is_told(slide: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter(["1", "0"])  # here, then there
    monkeypatch.setattr("wsi_ihc.conversion.executors.version", lambda name: next(told))
    with pytest.raises(ClusterError, match=r"has wsi-ihc 0, not 1.*one version everywhere"):
        convert_slide(slide, output, _settings(compute__threads=1))


@pytest.mark.timeout(60)
def test_a_clock_that_is_set_back_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """dask and tornado would wait with their messages until it is that late again."""
    with own_cluster(threads=2) as cluster:
        results = cluster.run(abs, range(-40, 0))
        assert next(results)
        now = time.time
        monkeypatch.setattr("time.time", lambda: now() - 2 * 86_400)
        assert len(list(results)) == 39


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two processes; a task is given up by dask with the first worker that dies over it."""
    folder = str(tmp_path_factory.mktemp("workers"))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=folder
        ) as cluster,
    ):
        yield cluster


@pytest.mark.slow
class TestWorkers:
    def test_a_worker_killed_in_mid_slide_costs_nothing(
        self,
        workers: LocalCluster,
        slide: Path,
        truth: bytes,
        output: Path,
    ) -> None:
        executor = disturbed(3, lambda: os.kill(next(iter(workers.workers.values())).pid, signal.SIGKILL))
        settings = _settings(compute__scheduler=workers.scheduler_address)
        assert convert_slide(slide, output, settings, executor=executor).output.read_bytes() == truth

    def test_a_task_that_was_unlucky_is_sent_again(self, workers: LocalCluster, tmp_path: Path) -> None:
        with cluster_at(workers.scheduler_address) as cluster:
            assert sorted(cluster.run(_deadly(tmp_path, times=2), [1, 2, 3])) == [10, 20, 30]

    def test_a_task_that_ends_every_worker_is_given_up(self, workers: LocalCluster, tmp_path: Path) -> None:
        with (
            cluster_at(workers.scheduler_address) as cluster,
            pytest.raises(DeviceError, match="every worker") as caught,
        ):
            list(cluster.run(_deadly(tmp_path, times=99), [1]))
        assert "\n" not in str(caught.value)

    def test_an_error_of_the_task_is_not_one_of_the_cluster(self, workers: LocalCluster) -> None:
        def full(item: int) -> int:
            raise StorageError(f"{item}: the disk is full")

        with cluster_at(workers.scheduler_address) as cluster, pytest.raises(StorageError, match="1: the disk is full"):
            list(cluster.run(full, [1]))

    def test_plugins_of_killed_clients_are_forgotten(self, workers: LocalCluster) -> None:
        killed = Client(workers.scheduler_address)
        Cluster(killed, workers.scheduler_address)._register(_Plugin(), f"_Plugin {killed.id}")
        killed.close()
        with cluster_at(workers.scheduler_address) as cluster, cluster.equipped(_Plugin()) as name:
            assert [each for each in workers.scheduler.worker_plugins if each.startswith("_Plugin")] == [name]
        assert not [each for each in workers.scheduler.worker_plugins if each.startswith("_Plugin")]


class _Plugin(WorkerPlugin):
    pass


def _deadly(folder: Path, times: int) -> Callable[[int], int]:
    """Ten times its item; item 1 first ends so many workers."""

    # A function inside a function is sent by value: the workers need not find this file.
    def task(item: int) -> int:
        victims = sorted(folder.glob("victim*"))
        if item == 1 and len(victims) < times:
            (folder / f"victim{len(victims)}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * item

    return task


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line_and_soon(
    slide: Path,
    truth: bytes,
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=str(tmp_path)
    ) as cluster:
        settings = _settings(compute__scheduler=cluster.scheduler_address)
        executor = disturbed(2, cluster.close)
        with pytest.raises(ClusterError, match="run the same command again") as caught:
            convert_slide(slide, output, settings, executor=executor)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("wsi_ihc.conversion.cluster._CONNECT_S", 0.5)
    with pytest.raises(ClusterError, match="no dask scheduler answers"):
        convert_slide(slide, output, settings)
    assert convert_slide(slide, output, _settings()).output.read_bytes() == truth

"""Every single fault by its name."""

from __future__ import annotations

from trials.faults import batches, files, network, wires

TRIALS = {
    trial.__name__.replace("_", " "): trial
    for trial in (
        files.full_disk,
        files.slide_cut,
        files.slide_cut_openslide,
        files.slide_vanished,
        files.slide_replaced,
        files.slide_exchanged,
        files.store_deleted,
        files.marks_deleted,
        files.blocks_damaged,
        files.two_runs,
        batches.two_batches,
        batches.batch_without_scheduler,
        network.clock_set_back,
        network.clock_jumps,
        network.stopped,
        network.lonely_worker,
        network.nobody_for_a_while,
        network.worker_cut_off,
        network.scheduler_cut_off,
        network.sleeper_of_an_earlier_run,
        *((wires.worker_unplugged, wires.scheduler_unplugged, wires.short_cuts) if wires.possible() else ()),
    )
}

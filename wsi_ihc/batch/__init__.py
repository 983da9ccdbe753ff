"""Many slides, overnight: each in a process of its own, recorded, resumable, shared between machines."""

from wsi_ihc.batch.cohort import Entry, gather, shard
from wsi_ihc.batch.options import BatchOptions
from wsi_ihc.batch.records import Records, SlideRecord
from wsi_ihc.batch.run import run_batch
from wsi_ihc.batch.tally import Tally, read_cohort, tally
from wsi_ihc.batch.watcher import Watcher

__all__ = [
    "BatchOptions",
    "Entry",
    "Records",
    "SlideRecord",
    "Tally",
    "Watcher",
    "gather",
    "read_cohort",
    "run_batch",
    "shard",
    "tally",
]

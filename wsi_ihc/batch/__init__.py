"""Converts many slides: each in a process of its own, recorded, resumable, shared between machines."""

from wsi_ihc.batch.cohort import Cohort, Entry, gather, shard
from wsi_ihc.batch.limits import Limits
from wsi_ihc.batch.options import BatchOptions
from wsi_ihc.batch.records import Records, SlideRecord
from wsi_ihc.batch.run import run_batch
from wsi_ihc.batch.search import LeftOut
from wsi_ihc.batch.tally import Tally, read_cohort, tally
from wsi_ihc.batch.watcher import Watcher

__all__ = [
    "BatchOptions",
    "Cohort",
    "Entry",
    "LeftOut",
    "Limits",
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

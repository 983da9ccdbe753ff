"""Training: pairs in, a generator out. A sibling of the inference path, which imports nothing from here."""

from wsi_ihc.training.check import CheckReport, check_sources
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.export import export_run
from wsi_ihc.training.loading import load_training_settings
from wsi_ihc.training.sources import find_sources
from wsi_ihc.training.trainer import Trainer

__all__ = [
    "CheckReport",
    "Trainer",
    "TrainingSettings",
    "check_sources",
    "export_run",
    "find_sources",
    "load_training_settings",
]

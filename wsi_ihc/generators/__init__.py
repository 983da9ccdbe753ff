"""Generators: networks, their weights, fixed normalisation, and inference."""

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.generators.bundle import (
    Bundle,
    load_bundle,
    read_card,
    save_bundle,
    weights_sha256,
)
from wsi_ihc.generators.card import GeneratorCard
from wsi_ihc.generators.checkpoint import read_pix2pix_checkpoint
from wsi_ihc.generators.folding import apply_statistics
from wsi_ihc.generators.inference import Stainer
from wsi_ihc.generators.library import (
    bundle_path,
    generator_name,
    import_checkpoint,
    installed_bundles,
    list_generators,
    load_card,
    load_generator,
    user_bundle_folder,
)
from wsi_ihc.generators.networks import Architecture, build_network, initialise
from wsi_ihc.generators.norm_statistics import NormStatistics
from wsi_ihc.generators.normalisation import fix_normalisation, resolve_mode
from wsi_ihc.machine.allocator import keep_memory_flat, tune_allocator

__all__ = [
    "RESEARCH_USE_ONLY",
    "Architecture",
    "Bundle",
    "GeneratorCard",
    "NormStatistics",
    "Stainer",
    "apply_statistics",
    "build_network",
    "bundle_path",
    "fix_normalisation",
    "generator_name",
    "import_checkpoint",
    "initialise",
    "installed_bundles",
    "keep_memory_flat",
    "list_generators",
    "load_bundle",
    "load_card",
    "load_generator",
    "read_card",
    "read_pix2pix_checkpoint",
    "resolve_mode",
    "save_bundle",
    "tune_allocator",
    "user_bundle_folder",
    "weights_sha256",
]

"""Generators: networks, their weights, their fixed normalisation, and pixels through them."""

from wsi_ihc.generators.allocator import tune_allocator
from wsi_ihc.generators.bundle import (
    Bundle,
    installed_bundles,
    load_bundle,
    load_generator,
    read_card,
    save_bundle,
    user_bundle_folder,
    weights_sha256,
)
from wsi_ihc.generators.card import RESEARCH_USE_ONLY, GeneratorCard
from wsi_ihc.generators.checkpoint import read_pix2pix_checkpoint
from wsi_ihc.generators.inference import Stainer
from wsi_ihc.generators.networks import Architecture, build_network, initialise
from wsi_ihc.generators.normalisation import NormStatistics, apply_statistics, fix_normalisation, resolve_mode

__all__ = [
    "RESEARCH_USE_ONLY",
    "Architecture",
    "Bundle",
    "GeneratorCard",
    "NormStatistics",
    "Stainer",
    "apply_statistics",
    "build_network",
    "fix_normalisation",
    "initialise",
    "installed_bundles",
    "load_bundle",
    "load_generator",
    "read_card",
    "read_pix2pix_checkpoint",
    "resolve_mode",
    "save_bundle",
    "tune_allocator",
    "user_bundle_folder",
    "weights_sha256",
]

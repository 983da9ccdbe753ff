"""The output as a pyramidal OME-TIFF with its provenance: writing, opening and verification."""

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.output.ometiff.verification import verify_ome_tiff
from wsi_ihc.output.ometiff.writing import write_ome_tiff
from wsi_ihc.output.provenance import Provenance, sidecar_path, write_sidecar
from wsi_ihc.output.verification_report import Check, VerificationReport

__all__ = [
    "RESEARCH_USE_ONLY",
    "Check",
    "Provenance",
    "VerificationReport",
    "sidecar_path",
    "verify_ome_tiff",
    "write_ome_tiff",
    "write_sidecar",
]

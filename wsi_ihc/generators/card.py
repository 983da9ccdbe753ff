"""What a bundle says about its weights: where they come from, what they stain, at which resolution."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsi_ihc import RESEARCH_USE_ONLY
from wsi_ihc.config import first_problem
from wsi_ihc.errors import GeneratorError
from wsi_ihc.generators.networks import Architecture

Evidence = Literal["not stated", "nothing learnt", "demonstration", "real tissue"]


class GeneratorCard(BaseModel):
    """The model card inside a bundle. Unknown keys are ignored, so that newer cards stay readable."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=100)
    """Short name, the one given to ``--generator``."""
    architecture: Architecture
    mpp: float | None = Field(default=None, ge=0.05, le=20)
    """Micrometres per pixel that the generator was made for; None where any resolution will do."""
    stain: str = Field(min_length=1)
    """What the output shows, for example ``HER2 IHC``."""
    counterstain: str = "haematoxylin"
    training_data: str = "not stated"
    """Data set and split the weights were fitted to."""
    licence: str = "not stated"
    """Of the weights; often that of the training data."""
    description: str = ""
    evidence: Evidence = "not stated"
    """What stands behind the stain. ``demonstration``: learnt from drawings, to show the pipeline. ``real tissue``:
    learnt from real stained tissue, and measured on regions that no training saw. ``nothing learnt``: arithmetic."""
    measured: str = ""
    """How it was measured, and with which result."""
    intended_use: str = RESEARCH_USE_ONLY
    sources: tuple[str, ...] = ()
    """Where the weights came from: publication, file name and its SHA-256."""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """Of the weights, see ``weights_sha256``; filled in when a bundle is saved."""
    created_by: str = ""
    """Program and version that wrote the bundle."""


def make_card(**facts: Any) -> GeneratorCard:
    """A card of these fields.

    Raises:
        GeneratorError: naming the field that cannot be.
    """
    try:
        return GeneratorCard(**facts)
    except ValidationError as error:
        raise GeneratorError(f"card: {first_problem(error)}") from None

"""The model card of a bundle: origin of the weights, stain and resolution."""

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
    """Short name, for ``--generator``."""
    architecture: Architecture
    mpp: float | None = Field(default=None, ge=0.05, le=20)
    """Micrometres per pixel for which the generator was made; None for any resolution."""
    stain: str = Field(min_length=1)
    """The stain of the output, for example ``HER2 IHC``."""
    counterstain: str = "haematoxylin"
    training_data: str = "not stated"
    """Data set and split on which the weights were trained."""
    licence: str = "not stated"
    """Licence of the weights; often that of the training data."""
    description: str = ""
    evidence: Evidence = "not stated"
    """Evidence for the stain. ``demonstration``: learnt from drawings, to show the pipeline. ``real tissue``: learnt
    from real stained tissue, and measured on regions outside the training set. ``nothing learnt``: arithmetic."""
    measured: str = ""
    """How the generator was measured, and the result."""
    intended_use: str = RESEARCH_USE_ONLY
    sources: tuple[str, ...] = ()
    """Where the weights came from: publication, file name and its SHA-256."""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """SHA-256 of the weights, see ``weights_sha256``; ``save_bundle`` fills it in."""
    created_by: str = ""
    """Program and version that wrote the bundle."""


def make_card(**facts: Any) -> GeneratorCard:
    """A card with these fields.

    Raises:
        GeneratorError: a field is not valid; the message names it.
    """
    try:
        return GeneratorCard(**facts)
    except ValidationError as error:
        raise GeneratorError(f"card: {first_problem(error)}") from None

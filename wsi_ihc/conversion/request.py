"""What a conversion is asked for: the settings, the generator, and the layers of the output."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_ihc.config import ConversionSettings
from wsi_ihc.conversion.measured import MeasuredLayer
from wsi_ihc.generators import Bundle, load_generator
from wsi_ihc.output.formats import FORMATS, OutputFormat
from wsi_ihc.pyramid.layers import Layer


@dataclass(frozen=True)
class Request:
    """One way to convert slides, the same for every slide."""

    settings: ConversionSettings
    bundle: Bundle
    stained: Layer
    """How the output's format encodes the stained pixels."""
    measured: tuple[MeasuredLayer, ...] = ()

    @classmethod
    def of(
        cls, settings: ConversionSettings, measured: tuple[MeasuredLayer, ...] = (), form: OutputFormat = FORMATS[0]
    ) -> Request:
        """Loads the generator that the settings name.

        Raises:
            GeneratorError: there is none of this name, or its file is damaged.
        """
        return cls(settings, load_generator(settings.generator.name), form.stained(settings.output), measured)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers of the output; the stained pixels come first."""
        return (self.stained, *(each.layer for each in self.measured))

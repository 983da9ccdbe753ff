"""Every setting of a conversion: its default, its unit and why. Unknown keys are refused with their path.

Defaults live here and nowhere else; a YAML file holds what differs, ``--set section.key=value`` comes last.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, ValidationError, field_validator

from wsi_ihc.errors import SettingsError, one_line


class Settings(BaseModel):
    """Base of every section: frozen, strict about names. The string under a field documents it."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError("expected auto, cpu, cuda or cuda:INDEX")
    return value


DeviceName = Annotated[str, AfterValidator(_known_device)]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class SlideSettings(Settings):
    """How the input is read."""

    reader: Literal["auto", "openslide", "tiffslide"] = "auto"
    """``auto`` takes the fastest reader that understands the file, and says which."""
    mpp: float | None = Field(default=None, ge=0.05, le=20)
    """Micrometres per pixel of the slide's level 0, for files that state none or an absurd one."""
    scene: int | None = Field(default=None, ge=1)
    """Which image of a file that holds several, counted from 1 as ``info`` lists them; by default the largest."""
    plane: int | None = Field(default=None, ge=1)
    """Which plane of a focal stack, counted from 1; by default the middle one."""
    cache_mb: int = Field(default=32, ge=0)
    """Decoded source tiles kept for neighbouring blocks; blocks are taken in an order that needs few."""


class ResolutionSettings(Settings):
    """The working plane."""

    mpp: float | None = Field(default=None, ge=0.05, le=20)
    """Resolution to work at, um/px; by default the one at which the generator was trained."""
    tolerance: float = Field(default=0.10, ge=0, le=0.5)
    """A level within this fraction of the wanted resolution is taken as it is: resampling would only blur it."""


class TissueSettings(Settings):
    """Which parts of the slide are stained; the rest stays glass."""

    source: str = "auto"
    """``auto`` finds the tissue, ``none`` stains everything, else the path of a GeoJSON file."""
    mpp: float = Field(default=8.0, gt=0, le=64)
    """Resolution of the mask, um/px: a nucleus is one pixel, a slide of 100k x 80k is read in a second."""
    margin_um: float = Field(default=32.0, ge=0)
    """Glass around tissue that is stained too, so that no edge of tissue is cut."""
    min_area_um2: float = Field(default=5000.0, ge=0)
    """Specks below this are dust: a disc 80 um across."""
    closing_um: float = Field(default=40.0, ge=0, le=500)
    """Gaps up to twice this are bridged: a fat cell is 50 to 100 um across, its membrane thinner than a pixel."""
    max_hole_um2: float = Field(default=50_000.0, ge=0)
    """Holes up to this belong to the tissue around them (fat, glands, small vessels): a disc 250 um across."""
    ink_halo_um: float = Field(default=24.0, ge=0, le=500)
    """Rim around a pen stroke that counts as ink: its blurred edge has the colour of neither ink nor glass."""
    ink_fringe_um: float = Field(default=80.0, ge=0, le=1000)
    """Colour this near to ink does not start a piece of tissue: it may be the ink's own fringe."""
    max_stroke_um: float = Field(default=1000.0, ge=0, le=5000)
    """Ink between tissue on both sides hides tissue when it is no wider than this; a marker's tip draws 0.5 to 1 mm."""


class GeneratorSettings(Settings):
    """Which network stains."""

    name: str = "her2-demo"
    """The name of a generator (``weights list`` shows them) or the path of a bundle. The default is a demonstration,
    made from drawn tissue; ``recolour`` learns nothing and takes slides of any resolution."""
    normalisation: Literal["auto", "running", "calibrated", "tile"] = "auto"
    """``auto``: running statistics for BatchNorm, calibrated on the slide's tissue for InstanceNorm.
    ``tile`` is the published per-tile behaviour, with its seams, for comparison."""
    calibration_tiles: int = Field(default=16, ge=1)
    """Windows of tissue whose statistics are pooled."""
    calibration_px: int = Field(default=384, ge=128)
    """Side of such a window, working pixels."""


class TilingSettings(Settings):
    """The grid of blocks. It must not change the pixels."""

    core_px: Annotated[int, Field(ge=512, le=8192, multiple_of=512)] | Literal["auto"] = "auto"
    """Side of a block's core, working pixels. Larger cores pay less halo and take more memory; ``auto`` is the size
    that costs least arithmetic for this slide's tissue within ``compute.memory``."""
    halo_px: int | None = Field(default=None, ge=0)
    """By default measured from the generator; less than that leaves seams."""


class ComputeSettings(Settings):
    """Where it runs."""

    device: DeviceName = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1``."""
    precision: Precision = "auto"
    """``auto``: bfloat16 where the processor multiplies it in hardware, float16 on a GPU, else float32."""
    backend: Literal["auto", "torch", "openvino"] = "auto"
    """What runs the generator. ``auto`` takes OpenVINO where it is installed and faster: in bfloat16 or float16 on a
    processor with AMX, with folded norm layers."""
    memory: ByteSize | Literal["auto"] = "auto"
    """What a conversion may take where the generator runs, for example ``4GB``: of the process on a CPU (``auto``:
    2 GB), of the device on a GPU (``auto``: half of what is free). More memory, larger blocks, less halo."""
    batch_size: int | Literal["auto"] = "auto"
    """Blocks in one pass of the generator; ``auto`` is 1 on a CPU and fits free memory on a GPU."""
    threads: int = Field(default=0, ge=0)
    """Blocks in the making at once, so that reading and encoding hide behind the device; 0 chooses."""
    scheduler: str | None = None
    """Address of a running dask scheduler; by default everything runs inside this process."""

    @field_validator("batch_size")
    @classmethod
    def _positive_batch(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("expected a positive number or auto")
        return value


class OutputSettings(Settings):
    """The OME-TIFF."""

    compression: Literal["jpeg", "deflate"] = "jpeg"
    """``jpeg`` 4:2:0, or ``deflate`` without loss (about six times larger)."""
    quality: int = Field(default=85, ge=1, le=100)
    """JPEG quality. 85 is what scanners use or better."""


class CheckSettings(Settings):
    """Which slides are refused instead of converted with a warning. It does not change the pixels."""

    strict: bool = False
    """Refuse a slide whose output would carry a warning: a doubtful stain or pixel size, damaged or missing parts."""
    any_stain: bool = False
    """Convert a slide that shows strong evidence of another stain than H&E (IHC, fluorescence); a warning remains."""


class ConversionSettings(Settings):
    """Every setting of a conversion. In YAML each section stands under its name."""

    slide: SlideSettings = SlideSettings()
    resolution: ResolutionSettings = ResolutionSettings()
    tissue: TissueSettings = TissueSettings()
    generator: GeneratorSettings = GeneratorSettings()
    tiling: TilingSettings = TilingSettings()
    compute: ComputeSettings = ComputeSettings()
    output: OutputSettings = OutputSettings()
    checks: CheckSettings = CheckSettings()


_Model = TypeVar("_Model", bound=Settings)


def load_settings(
    model: type[_Model],
    file: Path | None = None,
    overrides: dict[str, Any] | None = None,
    assignments: tuple[str, ...] = (),
) -> _Model:
    """Defaults, then ``file`` (YAML), then ``overrides`` (dotted keys), then ``assignments`` (``key=value``).

    Raises:
        SettingsError: naming the key, what was given and what was expected.
    """
    values = _read_yaml(file) if file else {}
    for key, value in (overrides or {}).items():
        _assign(values, key, value)
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise SettingsError(f"--set {assignment}: expected key=value, for example --set tiling.core_px=2048")
        _assign(values, key.strip(), _parse_scalar(assignment, text))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        where = f"{file}: " if file else ""
        raise SettingsError(where + first_problem(error, model)) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: cannot read the configuration ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{file}: not a text file; --config takes YAML with sections and keys") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingsError(f"{file}: not valid YAML{line} ({error.problem})") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: not valid YAML ({one_line(error)})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{file}: expected sections with keys, found {type(values).__name__}")
    return values


def _parse_scalar(assignment: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(f"--set {assignment}: the value is not valid YAML") from None


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{key}: {name} is a value, not a section")
    values[last] = value


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first problem in one line: the key, the expected and the given value; pydantic's report has many lines.

    For a setting that ``model`` does not have, the one with the most similar name.
    """
    first = error.errors(include_url=False)[0]
    # pydantic adds the branch of a union that failed; the user's key does not hold it.
    key = ".".join(
        str(part) for part in first["loc"] if str(part).isidentifier() and str(part) not in ("int", "float", "str")
    )
    if first["type"] == "extra_forbidden":
        similar = difflib.get_close_matches(key, _keys(model), 1) if model else []
        advice = f"did you mean {similar[0]}?" if similar else "see the settings reference for the names"
        return f"unknown setting {key!r}; {advice}"
    expected = "a section, set one of its keys" if first["type"] == "model_type" else first["msg"]
    given = textwrap.shorten(repr(first["input"]), 200)
    return f"{key or 'text'}: {expected.removeprefix('Value error, ')}, got {given}"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting of ``model`` and its sections, with dots."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from _keys(type(field.default), f"{prefix}{name}.")
        else:
            yield prefix + name

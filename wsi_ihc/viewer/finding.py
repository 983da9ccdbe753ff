"""Which files belong together: the slide of an output, the output of a slide, the cases of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.batch.cohort import is_dicom_folder
from wsi_ihc.batch.records import Records
from wsi_ihc.errors import SettingsError, UnreadableSlideError
from wsi_ihc.output.names import OutputName, output_stem
from wsi_ihc.viewer.outputs import provenance_entries_of

_OUTPUTS = ("*.ome.tiff", "*.ome.tif")


@dataclass(frozen=True)
class CaseFiles:
    """The files that are shown together; one of ``slide`` and ``output`` is there."""

    slide: Path | None
    """The H&E."""
    output: Path | None
    """The virtual stain; it may be still in the making."""
    others: tuple[Path, ...] = ()
    """Other scans of the same field, such as the real IHC."""

    @property
    def name(self) -> str:
        path = self.slide or self.output
        assert path
        return path.name


def store_of(output: Path) -> Path:
    """Where the blocks of an output that is not finished lie."""
    return OutputName(output).store


def case_of(paths: Sequence[Path]) -> CaseFiles:
    """The case that a user names by one path or several: the slide, its output, and other scans of the same field.

    One path is enough where the other file lies beside it or in the working folder, under the name that ``convert``
    gives it.

    Raises:
        UnreadableSlideError: a file is missing.
    """
    for path in paths:
        if not path.exists() and not store_of(path).exists():
            raise UnreadableSlideError(f"{path}: no such file; check the path")
    outputs = [path for path in paths if not path.exists() or provenance_entries_of(path)]
    scans = [path for path in paths if path not in outputs]
    if len(outputs) > 1:
        raise SettingsError(f"{outputs[1]}: a second output of wsi-ihc; view shows one with its slide at a time")
    output = outputs[0] if outputs else _output_beside(scans[0]) if len(scans) == 1 else None
    slide = scans[0] if scans else slide_of(outputs[0])
    return CaseFiles(slide, output, tuple(scans[1:]))


def slide_of(output: Path) -> Path | None:
    """The slide that ``output`` was made from: where a batch read it, beside the output, or in the working folder."""
    record = Records(output.parent).read(output.name.removesuffix(".ome.tiff"))
    if record and Path(record.slide).exists():
        return Path(record.slide)
    source = provenance_entries_of(output).get("source_name", "")
    if source in ("", ".", "..") or "/" in source:
        return None
    found = (folder / source for folder in (output.absolute().parent, output.absolute().parent.parent, Path.cwd()))
    return next((path for path in found if path.exists()), None)


def is_cohort(folder: Path) -> bool:
    """Whether ``folder`` is a folder of cases, and not a slide of DICOM files."""
    return folder.is_dir() and not is_dicom_folder(folder)


def cases_in(folder: Path) -> Iterator[CaseFiles]:
    """The cases of a cohort's folder, by name: those of its records, then every other output."""
    records = Records(folder)
    seen = set()
    for _, record in records.all():
        output = folder / record.output
        if output.exists() or store_of(output).exists():
            seen.add(output)
            slide = Path(record.slide)
            yield CaseFiles(slide if slide.exists() else None, output)
    outputs = sorted(path for pattern in _OUTPUTS for path in folder.glob(pattern))
    for output in outputs:
        if output not in seen and provenance_entries_of(output):
            yield CaseFiles(slide_of(output), output)


def _output_beside(slide: Path) -> Path | None:
    """The output that ``convert`` would have made of ``slide``, finished or not."""
    # The second is what version 0.1 of convert called it.
    names = {f"{output_stem(slide)}.ome.tiff", f"{slide.name.split('.')[0]}_ihc.ome.tiff"}
    found = (folder / name for folder in (slide.parent, Path.cwd()) for name in sorted(names))
    return next((path for path in found if path.exists() or store_of(path).exists()), None)

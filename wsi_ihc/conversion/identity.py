"""Whether a slide on disk is still the one that a run began with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsi_ihc.errors import UnreadableSlideError
from wsi_ihc.slides.files import FileState, file_states, source_digest


@dataclass(frozen=True)
class SlideIdentity:
    """Digest and file states of a slide at one moment; equal identities mean an unchanged slide."""

    path: Path
    digest: str
    """SHA-256 over samples of every file: what a later run compares."""
    files: tuple[FileState, ...]
    """Size, inode and time of every file: a file that is rewritten while it is read has others at the end."""

    @classmethod
    def of(cls, path: Path) -> SlideIdentity:
        """Raises UnreadableSlideError."""
        try:
            return cls(path, source_digest(path), file_states(path))
        except OSError as error:
            raise UnreadableSlideError(f"{path}: cannot be read ({error.strerror or error})") from None

    def is_kept(self) -> bool:
        """Whether the slide is unchanged. A slide that is gone counts as unchanged: it was there while it was read."""
        return not self.path.exists() or SlideIdentity.of(self.path) == self

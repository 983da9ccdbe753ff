"""Fetches OpenSeadragon, the page's tile viewer, from its npm package, and puts it among the package's data.

    python scripts/fetch_openseadragon.py

``npm pack`` gets the published package. Nothing is built or changed; the file must have the sha256 that
``wsi_ihc/viewer/page.py`` names.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from wsi_ihc.viewer.page import OPENSEADRAGON, OPENSEADRAGON_SHA256, OPENSEADRAGON_VERSION

ASSETS = Path(__file__).parents[1] / "wsi_ihc" / "viewer" / "assets"
MEMBERS = {
    f"package/build/openseadragon/{OPENSEADRAGON}": OPENSEADRAGON,
    "package/LICENSE.txt": "LICENSE-openseadragon.txt",
}


def main() -> None:
    """Replaces both files, or leaves both and exits with a message."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"openseadragon@{OPENSEADRAGON_VERSION}"]
        subprocess.run(command, cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            found = {name: package.extractfile(member) for member, name in MEMBERS.items()}
            contents = {name: stream.read() for name, stream in found.items() if stream}
    sha256 = hashlib.sha256(contents[OPENSEADRAGON]).hexdigest()
    if sha256 != OPENSEADRAGON_SHA256:
        sys.exit(f"{OPENSEADRAGON} has the sha256 {sha256}, not the {OPENSEADRAGON_SHA256} that was tested")
    for name, content in contents.items():
        (ASSETS / name).write_bytes(content)


if __name__ == "__main__":
    main()

"""Opens the user's browser without showing the token to other users of the machine."""

from __future__ import annotations

import html
import tempfile
import webbrowser
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread


@contextmanager
def opened(address: str) -> Generator[None]:
    """Opens ``address`` in the browser; a file that leads there lives as long as the context.

    A command line is visible to everybody in the list of processes. So the browser is given the name of a file, which
    only this user may read, and the file leads to the address.
    """
    with tempfile.TemporaryDirectory(prefix="wsi-ihc-view-") as folder:  # mode 0700
        page = Path(folder) / "open.html"
        page.touch(mode=0o600)
        page.write_text(redirect_page(address), encoding="utf-8")
        # A browser on a terminal would hold the server until it is closed.
        Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
        yield


def redirect_page(address: str) -> str:
    """HTML that leads to ``address`` at once."""
    safe = html.escape(address, quote=True)
    return (
        '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={safe}"><a href="{safe}">Open the viewer</a>'
    )

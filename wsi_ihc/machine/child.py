"""How this program starts itself as a child process, and how the child knows."""

from __future__ import annotations

import sys

# -P: a folder named wsi_ihc where the user happens to stand is not the package.
PROGRAM = (sys.executable, "-P", "-m", "wsi_ihc")
"""The beginning of the command line; the words after ``wsi-ihc`` follow."""

SUPERVISED = "WSI_IHC_SUPERVISED"
"""Variable of the environment with the process that supervises the child: it needs no other, and ends with that one."""

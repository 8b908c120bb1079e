"""Where tests keep their temporary files, servers' data included: in memory where there is room.

Nothing here is about what survives a power cut, and waiting for disks was a third of what the tests did.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
#: bytes; containers often get 64 MiB
_ROOM = 4 * 1024**3


def use_memory() -> None:
    """Let this process and its children make temporary files there, unless TMPDIR says otherwise."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return
    if shutil.disk_usage(_MEMORY).free >= _ROOM:
        os.environ["TMPDIR"] = str(_MEMORY)
        tempfile.tempdir = None

"""All processes of a run write one log, and it loses nothing when it rotates."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path

PROCESSES = 4
RECORDS = 5_000
BACKUPS = 20

WRITER = """
import logging, sys
from pathlib import Path
from orchestrator import logs

path, size, backups, records, name = sys.argv[1:]
logs.configure(Path(path), max_bytes=int(size), backups=int(backups))
with logs.bound(run="r-1", target=name):
    for number in range(int(records)):
        logging.getLogger("orchestrator.writer").info("record %d of a size that fills", number, extra={"n": number})
"""


def test_four_processes_write_every_record_over_many_rotations(tmp_path: Path) -> None:
    from orchestrator import logs

    path = tmp_path / "log" / "orchestrate.jsonl"
    arguments = [str(path), "400000", str(BACKUPS), str(RECORDS)]
    names = [f"writer{number}" for number in range(PROCESSES)]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, *arguments, name], stderr=subprocess.PIPE) for name in names
    ]
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * PROCESSES
    assert errors == [b""] * PROCESSES

    rotated = [file for file in path.parent.iterdir() if file.name.startswith(f"{path.name}.")]
    assert 5 <= len(rotated) < BACKUPS
    lines = [line for file in (path, *rotated) for line in file.read_text().splitlines()]
    assert len(lines) == PROCESSES * RECORDS
    seen = collections.Counter((record["target"], record["n"]) for record in map(json.loads, lines))
    assert seen == collections.Counter((name, number) for name in names for number in range(RECORDS))

    in_order = [record["n"] for record in logs.read(path, run="r-1", target="writer2")]
    assert in_order == list(range(RECORDS))

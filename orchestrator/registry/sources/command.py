"""Tenants as JSON that a command prints: a list of names, or of mappings."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from orchestrator.registry.models import CommandSource
from orchestrator.registry.problems import Mistake
from orchestrator.registry.sources.payloads import read_json, tenants_of
from orchestrator.registry.targets import Surroundings


def read(source: CommandSource, surroundings: Surroundings) -> list[Any]:
    """Run the command in the folder of tenants.yaml; it and its children end with its time."""
    arguments = [surroundings.variables.text(argument) for argument in source.run]
    try:
        process = subprocess.Popen(
            arguments,
            cwd=surroundings.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Mistake(
            f"`{source.run[0]}` cannot be started: {error.strerror}", "mend its path, which starts at tenants.yaml"
        ) from None
    try:
        # A little sooner than the source as a whole, so that nothing is left running.
        output, _ = process.communicate(timeout=source.timeout * 0.95)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Mistake(f"no answer within {source.timeout:g} s", "mend it, or raise its `timeout`") from None
    if process.returncode != 0:
        raise Mistake(f"`{source.run[0]}` ended with status {process.returncode}", "run it by hand to see why")
    return tenants_of(read_json(output))[0]

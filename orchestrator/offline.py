"""The SQL that a path would send, written without a connection."""

from __future__ import annotations

import contextlib
import io

from alembic.runtime.environment import EnvironmentContext

from orchestrator import classic, databases, logs
from orchestrator.environment import HANDOVER, Handover, Purpose
from orchestrator.errors import ScriptsError
from orchestrator.outputs import printed_aside
from orchestrator.plans import Job, Route
from orchestrator.redaction import first_line
from orchestrator.revisions import Scripts, refusing_exits
from orchestrator.tenants import Target
from orchestrator.tracebacks import said


def write_sql(job: Job, target: Target, scripts: Scripts) -> str:
    """SQL of the job's whole path for its target.

    A revision that reads from the database cannot be written this way; a comment then says which one and why.
    """
    buffer = io.StringIO()
    route = Route(path=job.path, wanted=job.wanted)
    config = scripts.config
    running: list[str] = []

    def upgrade(heads: tuple[str, ...], _context: object) -> object:
        for step in scripts.steps(job.command, route, heads):
            running.append(step.info.up_revision_id or "")
            yield step

    ours = scripts.uses_environment
    options = {} if ours else classic.options(target)
    config.attributes[HANDOVER] = Handover(targets=(target,), purpose=Purpose.OFFLINE)
    previous, config.output_buffer = config.output_buffer, buffer
    try:
        with (
            contextlib.nullcontext() if ours else classic.pointed_at(config, target.url),
            EnvironmentContext(
                config,
                scripts.directory,
                fn=upgrade,
                as_sql=True,
                starting_rev=list(job.found) or None,
                destination_rev=",".join(job.wanted),
                **options,
            ),
            logs.guarded(),
            refusing_exits(scripts.section),
            # Standard output is the script's.
            printed_aside(),
        ):
            scripts.directory.run_env()
    except ScriptsError:
        raise
    except Exception as error:  # noqa: BLE001 - any revision may refuse to work without a database
        place = f"revision {running[-1]}" if running else "env.py"
        buffer.write(f"-- {place} cannot be written as SQL: {type(error).__name__}: {first_line(said(error))}\n")
    finally:
        config.output_buffer = previous
        del config.attributes[HANDOVER]
    return f"{databases.backend_of(target).offline_heading(target)}\n\n{buffer.getvalue()}"

"""The SQL that a path would send, written without a connection."""

from __future__ import annotations

import contextlib
import dataclasses
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The SQL of one path, as far as it can be known without a database."""

    #: None where env.py cannot be run without one
    text: str | None
    #: why it is not whole
    flaw: str | None = None

    @property
    def whole(self) -> str:
        """The text, with a comment for what is missing in it."""
        comment = f"-- {self.flaw}\n" if self.flaw else ""
        return f"{self.text or ''}{comment}"


def write_sql(job: Job, target: Target, scripts: Scripts) -> Written:
    """SQL of the job's whole path for its target.

    A revision that reads from the database cannot be written this way; the flaw then says which one and why.
    """
    try:
        return _write(job, target, scripts)
    except ScriptsError as error:
        return Written(text=None, flaw=str(error))


def _write(job: Job, target: Target, scripts: Scripts) -> Written:
    buffer = io.StringIO()
    route = Route(path=job.path, wanted=job.wanted)
    config = scripts.config
    running: list[str] = []
    flaw: str | None = None

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
        flaw = f"{place} cannot be written as SQL: {type(error).__name__}: {first_line(said(error))}"
    finally:
        config.output_buffer = previous
        del config.attributes[HANDOVER]
    heading = databases.backend_of(target).offline_heading(target)
    return Written(text=f"{heading}\n\n{buffer.getvalue()}", flaw=flaw)

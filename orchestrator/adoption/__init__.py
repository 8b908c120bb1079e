"""`orchestrate init`: start an Alembic environment, or adopt the one that is there."""

from __future__ import annotations

import dataclasses
import os
from importlib import resources
from pathlib import Path

from orchestrator.adoption import layouts, registries
from orchestrator.adoption.layouts import MAIN, Layout
from orchestrator.adoption.proposals import Change, Proposal, read
from orchestrator.adoption.rewriting import IMPORT, LOOP, NotCarried, Rewritten, rewrite
from orchestrator.revisions import uses_environment

__all__ = ["Change", "Proposal", "propose"]

_URL_HINT = (
    "until then it works as it is for a database per tenant: each job puts its own database into `sqlalchemy.url`"
)


def propose(directory: Path, config: Path | None = None) -> Proposal:
    """What has to be written so that the project in a directory migrates all its tenants; revisions are never touched.

    `config` names an alembic.ini, wherever it is. An existing tenants.yaml stays as it is.
    """
    layout = layouts.find(directory.absolute(), config)
    draft = _Draft(directory=directory.absolute(), layout=layout)
    if layout.adopted != layout.text or layout.text is None:
        draft.change(layout.config, layout.text, layout.adopted or _config(layout))
    sections = {folder: section for section, folder in reversed(layout.folders.items())}
    rewritten = [draft.environment(section, folder) for folder, section in reversed(sections.items())]
    draft.registry(rewritten[0])
    if not draft.changes and draft.complete:
        draft.notes.append("nothing to do: the environment is adopted already")
    return Proposal(
        directory=draft.directory,
        config=layout.config,
        changes=tuple(draft.changes),
        notes=tuple(draft.notes),
        complete=draft.complete,
    )


@dataclasses.dataclass(kw_only=True)
class _Draft:
    """A proposal while it is being made."""

    directory: Path
    layout: Layout
    changes: list[Change] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    complete: bool = True

    def change(self, path: Path, before: str | None, after: str) -> None:
        self.changes.append(Change(path=path, before=before, after=after))

    def environment(self, section: str, folder: Path) -> Rewritten | None:
        """Write what the folder of one section lacks, and adopt the env.py that it has."""
        path = folder / "env.py"
        if not path.is_file():
            self._start(folder)
            return None
        if uses_environment(path):
            return None
        before = read(path).replace("\r\n", "\n")
        place = os.path.relpath(path, self.directory)
        try:
            rewritten = rewrite(before, place)
        except NotCarried as error:
            self._leave(place, before, error)
            return None
        self.change(path, before, rewritten.text)
        self._note_carried(section, rewritten)
        return rewritten

    def registry(self, rewritten: Rewritten | None) -> None:
        """Write a tenants.yaml beside alembic.ini where there is none."""
        path = self.layout.config.parent / "tenants.yaml"
        if path.is_file():
            return
        is_flask = rewritten is not None and rewritten.is_flask
        app = _application(self.directory) if is_flask else None
        if is_flask and app is None:
            self.notes.append("tenants.yaml: name the Flask application in `sources`; FLASK_APP is not set")
        self.change(path, None, registries.starter(self.directory, self.layout.url, rewritten, app))

    def _start(self, folder: Path) -> None:
        self.change(folder / "env.py", None, _template("env.py.txt"))
        if not (folder / "script.py.mako").is_file():
            self.change(folder / "script.py.mako", None, _template("script.py.mako"))
        if not (folder / "versions").is_dir():
            self.change(folder / "versions" / ".gitkeep", None, "")

    def _leave(self, place: str, text: str, error: NotCarried) -> None:
        """Leave an env.py alone and say what to change in it."""
        self.complete = False
        self.notes.append(f"{place} is left as it is; these lines keep it from being changed by a program:")
        self.notes.extend(f"  {problem}" for problem in error.problems)
        self.notes.append(_by_hand(place))
        if _takes_its_url(text):
            self.notes.append(_URL_HINT)
        elif "sqlalchemy.url" in text:
            self.notes.append(f"{place} sets `sqlalchemy.url` itself, so until then all tenants would be one database")

    def _note_carried(self, section: str, rewritten: Rewritten) -> None:
        self.notes.extend(rewritten.notes)
        options = {
            "version_table": rewritten.version_table,
            "version_table_schema": rewritten.version_table_schema,
            "transaction": "revision" if rewritten.per_revision else None,
        }
        said = ", ".join(f"{key}: {value}" for key, value in options.items() if value)
        is_written = section == MAIN and not (self.layout.config.parent / "tenants.yaml").is_file()
        if said and is_written:
            self.notes.append(f"tenants.yaml says what env.py said before: {said}")
        elif said:
            where = f"the databases of section [{section}]" if section != MAIN else "`defaults`"
            self.notes.append(f"add to tenants.yaml, for {where}, what env.py said before: {said}")


def _config(layout: Layout) -> str:
    folder = os.path.relpath(layout.folders[MAIN], layout.config.parent)
    return _template("alembic.ini.txt").replace("%(here)s/alembic", f"%(here)s/{folder}")


def _template(name: str) -> str:
    return (resources.files("orchestrator") / "templates" / name).read_text(encoding="utf-8")


def _application(directory: Path) -> str | None:
    """What `flask` itself would run, as `module:attribute`: FLASK_APP, which may be a path, else wsgi.py or app.py."""
    name = os.environ.get("FLASK_APP")
    if not name:
        return next((found for found in ("wsgi", "app") if (directory / f"{found}.py").is_file()), None)
    path, separator, attribute = name.partition(":")
    return path.removesuffix(".py").strip("./").replace("/", ".") + separator + attribute


def _takes_its_url(text: str) -> bool:
    sets = "set_main_option" in text or "set_section_option" in text
    return not sets and ("sqlalchemy.url" in text or "engine_from_config" in text)


def _by_hand(place: str) -> str:
    loop = "".join(f"    {line}\n" for line in LOOP.format(environment="environment", context="context").splitlines())
    return (
        f"to change {place} by hand: add `{IMPORT}`; give both functions a parameter `target`; connect with `with "
        "target.connect() as connection`; call `context.configure(**target.options(connection=connection, …))` with "
        "your own keywords, offline with `url=target.url, literal_binds=True` instead; and end the file with\n"
        f"{loop}".rstrip("\n")
    )

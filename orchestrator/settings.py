"""One frozen record of where everything is: flags go before the environment, the environment before defaults."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import SettingsError

_CONFIGS = (Path("alembic.ini"), Path("migrations", "alembic.ini"))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the project's files are, and what the command line said about the whole command."""

    #: alembic.ini
    config: Path
    #: tenants.yaml
    registry: Path
    #: section of alembic.ini that Alembic's own commands use; targets name theirs
    section: str = "alembic"
    #: Alembic's `-x key=value`
    x: tuple[str, ...] = ()
    #: overrides `ledger:` of the registry
    ledger: str | None = dataclasses.field(default=None, repr=False)
    #: JSON lines of all processes; None for `.orchestrate/log/orchestrate.jsonl` beside the registry
    log: Path | None = None
    #: go on though the fleet is more than 10 % smaller than in the last run
    accept_shrink: bool = False

    @property
    def root(self) -> Path:
        """Folder of the registry: relative paths in it start here."""
        return self.registry.parent

    @property
    def log_file(self) -> Path:
        """Where the log goes."""
        return self.log or self.root / ".orchestrate" / "log" / "orchestrate.jsonl"

    @classmethod
    def load(
        cls,
        config: str | os.PathLike[str] | None = None,
        registry: str | os.PathLike[str] | None = None,
        *,
        section: str | None = None,
        x: tuple[str, ...] = (),
        ledger: str | None = None,
        accept_shrink: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Settle each setting from the argument, else the environment, else the default; the files must exist."""
        environ = os.environ if environ is None else environ
        config_path = Path(
            config or environ.get("ORCHESTRATE_CONFIG") or environ.get("ALEMBIC_CONFIG") or _default_config()
        ).absolute()
        registry_path = Path(
            registry or environ.get("ORCHESTRATE_REGISTRY") or config_path.parent / "tenants.yaml"
        ).absolute()
        _must_exist(config_path, "-c/--config", "ORCHESTRATE_CONFIG")
        _must_exist(registry_path, "-f/--registry", "ORCHESTRATE_REGISTRY")
        log = environ.get("ORCHESTRATE_LOG")
        return cls(
            config=config_path,
            registry=registry_path,
            section=section or "alembic",
            x=x,
            ledger=ledger or environ.get("ORCHESTRATE_LEDGER") or None,
            log=Path(log).absolute() if log else None,
            accept_shrink=accept_shrink,
        )


def _default_config() -> Path:
    """`alembic.ini` of the current folder, else the one that Flask-Migrate keeps."""
    return next((path for path in _CONFIGS if path.is_file()), _CONFIGS[0])


def _must_exist(path: Path, flag: str, variable: str) -> None:
    if not path.is_file():
        raise SettingsError(
            f"{path}: no such file; name it with {flag} or {variable}, or run `orchestrate init` to write one"
        )

"""`${VAR}`, `${file:…}` and `{tenant}` in scalars: found in the text as written, filled in value by value."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from orchestrator.redaction import is_secretive, remember
from orchestrator.registry.problems import Mistake, few, nearest

LARGEST_SECRET = 64 * 1024

_VARIABLES = re.compile(r"(?P<dollar>\$\$\{)|\$\{(?P<variable>[^}]*)\}")
_ALL = re.compile(_VARIABLES.pattern + r"|(?P<open>\{\{)|(?P<close>\}\})|\{(?P<placeholder>[^{}]*)\}")
_NAME = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_PLACEHOLDER = re.compile(r"tenant|database|label\.[A-Za-z0-9_.-]+")
#: what a label may hold where it becomes part of a URL, a schema or another name
_SAFE_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """`${NAME}`, `${NAME:-default}` or `${file:path}`."""

    name: str | None = None
    default: str | None = None
    file: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Placeholder:
    """`{tenant}`, `{database}` or `{label.NAME}`."""

    name: str


Part: TypeAlias = str | Variable | Placeholder
#: what a variable or placeholder stands for
Fill: TypeAlias = Callable[[Variable | Placeholder], str]


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """A scalar as written, taken apart."""

    raw: str
    parts: tuple[Part, ...]

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to fill in."""
        return all(isinstance(part, str) for part in self.parts)

    @property
    def is_one_variable(self) -> bool:
        """Whether the scalar is nothing but `${VAR}` or `${file:…}`."""
        return len(self.parts) == 1 and isinstance(self.parts[0], Variable)

    @property
    def has_placeholders(self) -> bool:
        """Whether its value differs by tenant."""
        return any(isinstance(part, Placeholder) for part in self.parts)

    @property
    def has_variables(self) -> bool:
        """Whether its value may be a secret."""
        return any(isinstance(part, Variable) for part in self.parts)

    def filled(self, fill: Fill) -> str:
        """The text with everything put in."""
        return "".join(part if isinstance(part, str) else fill(part) for part in self.parts)


@functools.lru_cache(maxsize=4096)
def take_apart(raw: str, *, placeholders: bool) -> Template:
    """Find variables, and placeholders where they stand for something; raises `Mistake` for what is neither."""
    parts: list[Part] = []
    end = 0
    for match in (_ALL if placeholders else _VARIABLES).finditer(raw):
        parts += [raw[end : match.start()], _part(match, in_password=_is_in_password(raw, match))]
        end = match.end()
    parts.append(raw[end:])
    if not placeholders:
        _refuse_placeholders(parts)
    return Template(raw, tuple(part for part in parts if part != ""))


def _is_in_password(raw: str, match: re.Match[str]) -> bool:
    """Whether it stands before the @ of a URL: what looks like a placeholder may be a piece of a password there."""
    return "://" in raw[: match.start()] and "@" in raw[match.end() :]


def _part(match: re.Match[str], *, in_password: bool) -> Part:
    groups = match.groupdict()
    if groups["dollar"]:
        return "${"
    if groups["variable"] is not None:
        return _variable(groups["variable"])
    if groups["open"] or groups["close"]:
        return "{" if groups["open"] else "}"
    name = groups["placeholder"]
    if not _PLACEHOLDER.fullmatch(name):
        hint = nearest(name, ["tenant", "database", "label."], "known are {tenant}, {database} and {label.NAME}")
        written = "" if in_password else f" `{{{name}}}`"
        raise Mistake(f"unknown placeholder{written}", f"{hint}; a literal brace is written {{{{", is_general=True)
    return Placeholder(name)


def _variable(inside: str) -> Variable:
    if inside.startswith("file:") and len(inside) > len("file:"):
        return Variable(file=inside.removeprefix("file:"))
    match = _NAME.fullmatch(inside)
    if not match:
        raise Mistake(
            "`${…}` holds no variable", "write ${NAME}, ${NAME:-default} or ${file:/path}; $${ is a literal ${"
        )
    return Variable(name=match["name"], default=match["default"])


def _refuse_placeholders(parts: list[Part]) -> None:
    for part in parts:
        match = re.search(r"\{(tenant|database|label\.[A-Za-z0-9_.-]+)\}", part) if isinstance(part, str) else None
        if match:
            raise Mistake(
                f"placeholder `{match[0]}` outside `defaults` and `profiles`", "write the name itself, or move the line"
            )


def filled_within(value: Any, fill: Callable[[str], str]) -> Any:
    """A value of YAML with every text in it filled in; keys are left as they are."""
    if isinstance(value, str):
        return fill(value)
    if isinstance(value, dict):
        return {key: filled_within(item, fill) for key, item in value.items()}
    return [filled_within(item, fill) for item in value] if isinstance(value, list) else value


class Variables:
    """Values of variables and secret files, read once each."""

    def __init__(self, root: Path, environ: Mapping[str, str] | None = None) -> None:
        self._root = root
        self._environ = os.environ if environ is None else environ
        self._files: dict[str, str] = {}

    def value(self, variable: Variable | Placeholder) -> str:
        """What a variable stands for; raises `Mistake` where it stands for nothing."""
        if isinstance(variable, Placeholder):
            raise Mistake(
                f"placeholder `{{{variable.name}}}` outside `defaults` and `profiles`", "write the name itself"
            )
        if variable.file is not None:
            return self._file(variable.file)
        name = variable.name or ""
        value = self._environ.get(name)
        if is_secretive(name):
            remember(value)
        if variable.default is not None:
            return value or variable.default
        if value is None:
            raise Mistake(
                f"variable `{name}` is not set", f"export {name}, or write ${{{name}:-default}}", is_general=True
            )
        return value

    def text(self, raw: str) -> str:
        """A scalar in which only variables stand."""
        return take_apart(raw, placeholders=False).filled(self.value)

    def _file(self, name: str) -> str:
        if name not in self._files:
            try:
                with (self._root / name).open("rb") as file:
                    content = file.read(LARGEST_SECRET + 1)  # of /dev/zero as well
                if len(content) > LARGEST_SECRET:
                    raise Mistake(
                        f"file `{name}` is too large for a value",
                        f"at most {LARGEST_SECRET} bytes are read",
                        is_general=True,
                    )
                self._files[name] = content.decode().rstrip("\r\n")
                remember(self._files[name])
            except OSError as error:
                raise Mistake(
                    f"file `{name}` cannot be read: {error.strerror}", "create it, or mend the path"
                ) from None
            except UnicodeDecodeError:
                raise Mistake(
                    f"file `{name}` is not UTF-8 text", "write the value as plain text", is_general=True
                ) from None
        return self._files[name]


def filler(variables: Variables, names: Mapping[str, str], *, any_label: bool = False) -> Fill:
    """Fills in variables, and the names of one tenant (`tenant`, `database`, `label.NAME`).

    `any_label` is for text that is no part of a name or a URL, and is checked as a whole: `{label.zone}` of a window.
    """

    def fill(part: Variable | Placeholder) -> str:
        if isinstance(part, Variable):
            return variables.value(part)
        if part.name in names:
            return names[part.name] if any_label else _safe(part.name, names[part.name])
        if part.name == "database":
            raise Mistake("placeholder `{database}`, but the tenant has no `databases`", "use {tenant}, or name them")
        labels = [name for name in names if name.startswith("label.")]
        known = f"it has {few(labels)}" if labels else "it has no labels"
        raise Mistake(
            f"placeholder `{{{part.name}}}`, but tenant `{names['tenant']}` has no such label",
            nearest(part.name, labels, known),
        )

    return fill


def _safe(name: str, value: str) -> str:
    if name.startswith("label.") and not _SAFE_LABEL.fullmatch(value):
        raise Mistake(
            f"the value of `{{{name}}}` cannot be part of another value",
            "letters, digits, `_`, `.` and `-` only, and no `.` or `-` at its start",
        )
    return value

"""What GitHub Actions reads from the output of a step: commands, and how no text of a tenant becomes one."""

from __future__ import annotations

import os

#: how a line begins that is a command; an older form is one wherever it stands in a line
_COMMAND, _OLD_COMMAND = "::", "##["


def is_watching() -> bool:
    """Whether this process is a step of a workflow of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def inert(text: str) -> str:
    """The line with an escape where a runner would take it for a command; one that masks every log, for example."""
    text = _without_old_command(text)
    blanks = len(text) - len(text.lstrip())
    return text[:blanks] + r"\x3a" + text[blanks + 1 :] if text.startswith(_COMMAND, blanks) else text


def inert_json(text: str) -> str:
    """JSON that means the same and holds no command: in it the older form can stand in strings only."""
    return text.replace(_OLD_COMMAND, r"\u0023#[")


def command(name: str, message: str, *, title: str) -> str:
    """A command that shows a message: `::error title=…::…`."""
    return f"::{name} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return _without_old_command(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _without_old_command(text: str) -> str:
    return text.replace(_OLD_COMMAND, r"\x23#[")

"""The report of a run in the forms that people and their tools read: a page, JUnit, Markdown, gauges.

Everything here is made from a `Report` alone, so that it can be made again from the ledger at any later time.
"""

from __future__ import annotations

import importlib
from typing import Any

from orchestrator.outcomes import Report

#: endings of files and the module that writes what belongs into them; `.json` is the report itself
FORMS = {".html": "html", ".xml": "junit", ".md": "markdown"}


def render(report: Report, ending: str) -> str:
    """The report in the form of an ending of `FORMS`; each form is imported when it is first asked for."""
    text: str = _form(ending).render(report)
    return text


def nothing(text: str, ending: str) -> str:
    """What a command that had nothing to do leaves in a file of that form: whoever collects it finds one."""
    made: str = _form(ending).nothing(text)
    return made


def _form(ending: str) -> Any:
    return importlib.import_module(f"{__name__}.{FORMS[ending]}")

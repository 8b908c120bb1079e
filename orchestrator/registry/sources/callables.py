"""`module:callable` that gives tenants."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from orchestrator import applications
from orchestrator.registry.problems import Mistake


def call(name: str, root: Path) -> Iterable[Any]:
    """What the callable returns; raises `Mistake` where it is not there or gives nothing to iterate over."""
    for folder in dict.fromkeys([root, Path.cwd()]):
        applications.importable(folder)
    module, _, attribute = name.partition(":")
    try:
        function = attrgetter(attribute)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise Mistake(f"`{name}`: there is no module `{error.name}`", "run where it can be imported") from None
    except AttributeError:
        raise Mistake(f"`{name}`: module `{module}` has no `{attribute}`", "mend the name") from None
    if not callable(function):
        raise Mistake(f"`{name}` cannot be called", "name a function that returns tenants")
    found = function()
    if isinstance(found, (str, bytes, Mapping)) or not isinstance(found, Iterable):
        raise Mistake(f"`{name}` returned no list of tenants", "return names, or mappings with `name`")
    return found

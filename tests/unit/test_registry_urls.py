"""Values of variables reach a URL's components as they are, whatever characters they hold."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from orchestrator.registry.urls import fill_url
from orchestrator.registry.variables import Placeholder, Variable, take_apart

ANYTHING = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@hypothesis.given(user=ANYTHING, password=ANYTHING, database=ANYTHING, mode=ANYTHING)
def test_every_value_arrives_whole_and_nowhere_else(user: str, password: str, database: str, mode: str) -> None:
    values = {"U": user, "P": password, "D": database, "M": mode}

    def fill(part: Variable | Placeholder) -> str:
        return values[part.name or ""]

    template = take_apart("postgresql://${U}:x${P}@h:5432/d_${D}?sslmode=${M}", placeholders=True)
    url = fill_url(template, fill)
    assert (url.username, url.password, url.database) == (user, "x" + password, "d_" + database)
    assert (url.host, url.port, dict(url.query)) == ("h", 5432, {"sslmode": mode})

"""Changes to a source text that leave everything else in it, comments and spacing included, as it was."""

from __future__ import annotations

import ast
import dataclasses
import io
import re
import textwrap

from orchestrator.adoption.syntax import first_line_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    start: int
    end: int
    text: str


class SourceText:
    """A Python file, its syntax tree, and the changes that are to be made to it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self._lines = list(io.StringIO(text))
        self._edits: list[_Edit] = []
        #: indexes of lines
        self._removed: set[int] = set()

    def segment(self, node: ast.AST) -> str:
        """The node's own text."""
        return ast.get_source_segment(self.text, node) or ast.unparse(node)

    def statement(self, statement: ast.stmt) -> str:
        """The whole lines of a statement, with the comment right above it, moved to the left margin."""
        first, last = self._extent(statement)
        return textwrap.dedent("".join(self._lines[first:last])).rstrip("\n")

    def remove(self, statement: ast.stmt) -> None:
        """Take out a statement; its comment goes with it, unless it opens the file."""
        first, last = self._extent(statement)
        self._removed.update(range(first, last))

    def replace(self, statement: ast.stmt, text: str) -> None:
        """Put other lines in the place of a statement."""
        start, end = self._offset(statement.lineno - 1), self._offset(statement.end_lineno or statement.lineno)
        self._edits.append(_Edit(start=start, end=end, text=text))

    def insert_after(self, statement: ast.stmt, text: str) -> None:
        """Put lines below a statement."""
        place = self._offset(statement.end_lineno or statement.lineno)
        self._edits.append(_Edit(start=place, end=place, text=text))

    def add_keyword(self, call: ast.Call, keyword: str) -> None:
        """Give a call one more keyword argument."""
        closing = self._place(call.end_lineno or call.lineno, (call.end_col_offset or 1) - 1)
        before = self.text[:closing].rstrip()
        separator = " " if before.endswith(",") else "" if before.endswith("(") else ", "
        end = len(before) if separator == ", " else closing
        self._edits.append(_Edit(start=end, end=closing, text=separator + keyword))

    def edited(self) -> str:
        """The text with all changes made, and no more than two empty lines in a row."""
        text = self.text
        self._remove_gaps()
        for line in self._removed:
            self._edits.append(_Edit(start=self._offset(line), end=self._offset(line + 1), text=""))
        for edit in sorted(self._edits, key=lambda edit: (edit.start, edit.end), reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        return re.sub(r"\n{4,}", "\n\n\n", text)

    def _remove_gaps(self) -> None:
        """Where the lines above what is removed end in an empty one, the empty ones below it go too."""
        above_is_empty = True
        for line, text in enumerate(self._lines):
            is_gap = not text.strip() and line - 1 in self._removed and above_is_empty
            if is_gap:
                self._removed.add(line)
            elif line not in self._removed:
                above_is_empty = not text.strip()

    def _extent(self, statement: ast.stmt) -> tuple[int, int]:
        first = first_line_of(statement) - 1
        comment = first
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            while comment and self._lines[comment - 1].lstrip().startswith("#"):
                comment -= 1
        return comment or first, statement.end_lineno or statement.lineno

    def _offset(self, line: int) -> int:
        return sum(len(text) for text in self._lines[:line])

    def _place(self, line: int, column: int) -> int:
        # ast counts columns in bytes of UTF-8.
        before = self._lines[line - 1].encode()[:column].decode()
        return self._offset(line - 1) + len(before)

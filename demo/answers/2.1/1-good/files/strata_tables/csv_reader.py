"""Reads CSV as RFC 4180 describes it, strictly: what breaks the rules is an error with its line.

Beyond the RFC, a line may also end with LF or CR alone, blank lines are skipped, a byte order mark
at the very beginning is dropped, and the delimiter can be chosen.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

_BYTE_ORDER_MARK = "\ufeff"


class CsvError(ValueError):
    """The text is not CSV; `line` (from 1) is where the fault begins."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


def read_rows(source: str | Iterable[str], *, delimiter: str = ",") -> Iterator[list[str]]:
    """The rows of the text, each as soon as it is complete.

    The text may come in pieces (an open file, a download), cut anywhere.
    """
    for _, row in _numbered_rows(source, delimiter):
        yield row


def read_dicts(source: str | Iterable[str], *, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """The rows after the first one, which names the columns. All rows must be as wide as it is."""
    rows = _numbered_rows(source, delimiter)
    header_line, header = next(rows, (1, []))
    for at, name in enumerate(header):
        if name in header[:at]:
            raise CsvError(header_line, f"the column {name!r} stands there twice")
    for line, row in rows:
        if len(row) != len(header):
            raise CsvError(line, f"{len(row)} fields instead of {len(header)}")
        yield dict(zip(header, row))


def _numbered_rows(source: str | Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"{delimiter!r} cannot be a delimiter")
    builder = _RowBuilder(delimiter)
    for piece in [source] if isinstance(source, str) else source:
        for character in piece:
            row = builder.take(character)
            if row is not None:
                yield row
    row = builder.finish()
    if row is not None:
        yield row


class _State(enum.Enum):
    START = enum.auto()  # of a field
    PLAIN = enum.auto()  # inside a field without quotes
    QUOTED = enum.auto()  # between two quotes
    CLOSED = enum.auto()  # after a quote that ends the field, unless another quote follows


class _RowBuilder:
    """Takes characters one by one; hands out each row, with its first line, when it ends."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._state = _State.START
        self._row: list[str] = []
        self._field: list[str] = []
        self._line = 1
        self._row_line = 1
        self._quote_line = 1
        self._at_beginning = True
        self._after_return = False

    def take(self, character: str) -> tuple[int, list[str]] | None:
        if self._at_beginning:
            self._at_beginning = False
            if character == _BYTE_ORDER_MARK:
                return None
        second_half = self._after_return and character == "\n"  # of CR LF, one line ending
        self._after_return = character == "\r"
        line_ends = character in "\r\n" and not second_half
        self._line += line_ends
        if self._state is _State.QUOTED:
            self._take_quoted(character)
        elif line_ends:
            return self._end_row()
        elif not second_half:
            self._take_unquoted(character)
        return None

    def finish(self) -> tuple[int, list[str]] | None:
        if self._state is _State.QUOTED:
            raise CsvError(self._quote_line, "a quote is opened and never closed")
        return self._end_row()

    def _take_quoted(self, character: str) -> None:
        if character == '"':
            self._state = _State.CLOSED
        else:
            self._field.append(character)

    def _take_unquoted(self, character: str) -> None:
        if character == self._delimiter:
            self._end_field()
        elif character == '"':
            self._take_quote()
        elif self._state is _State.CLOSED:
            raise CsvError(self._line, "text after the closing quote of a field")
        else:
            self._state = _State.PLAIN
            self._field.append(character)

    def _take_quote(self) -> None:
        if self._state is _State.PLAIN:
            raise CsvError(self._line, "a quote inside a field that does not begin with one")
        if self._state is _State.CLOSED:
            self._field.append('"')
        else:
            self._quote_line = self._line
        self._state = _State.QUOTED

    def _end_field(self) -> None:
        self._row.append("".join(self._field))
        self._field.clear()
        self._state = _State.START

    def _end_row(self) -> tuple[int, list[str]] | None:
        blank = self._state is _State.START and not self._row
        if not blank:
            self._end_field()
        line, row = self._row_line, self._row
        self._row_line, self._row = self._line, []
        return None if blank else (line, row)

"""Tables in memory: columns with names, summaries of numbers, and groups of rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from strata_tables.cells import Cell, parse_cell
from strata_tables.csv_reader import read_dicts, read_rows

Number = int | float


@dataclass(frozen=True)
class Summary:
    """What is known of a column of numbers. Without numbers, all but the two counts is None."""

    count: int
    missing: int
    minimum: Number | None = None
    maximum: Number | None = None
    mean: float | None = None
    median: Number | None = None
    deviation: float | None = None  # of a sample: None for a single number


class Table:
    """Rows of equal width under column names that differ. A table does not change."""

    def __init__(self, columns: Iterable[str], rows: Iterable[Sequence[Cell]]) -> None:
        self.columns = tuple(columns)
        for at, name in enumerate(self.columns):
            if name in self.columns[:at]:
                raise ValueError(f"the column {name!r} stands there twice")
        self._rows = [tuple(row) for row in rows]
        for number, row in enumerate(self._rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells, not {len(self.columns)}")

    @classmethod
    def from_csv(cls, text: str, *, delimiter: str = ",") -> Table:
        """The table that the CSV text spells, with typed cells. Raises CsvError."""
        columns = next(read_rows(text, delimiter=delimiter), [])
        rows = read_dicts(text, delimiter=delimiter)
        return cls(columns, ([parse_cell(cell) for cell in row.values()] for row in rows))

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> Iterator[tuple[Cell, ...]]:
        return iter(self._rows)

    def column(self, name: str) -> list[Cell]:
        at = self._place(name)
        return [row[at] for row in self._rows]

    def summary(self, name: str) -> Summary:
        """Raises TypeError when the column holds something that is neither a number nor missing."""
        cells = self.column(name)
        numbers = _numbers(name, cells)
        missing = len(cells) - len(numbers)
        if not numbers:
            return Summary(0, missing)
        return Summary(
            len(numbers),
            missing,
            min(numbers),
            max(numbers),
            statistics.fmean(numbers),
            statistics.median(numbers),
            statistics.stdev(numbers) if len(numbers) > 1 else None,
        )

    def group_by(self, keys: str | Sequence[str], **reductions: tuple[str, str]) -> Table:
        """One row for each combination of keys, in the order of its first row.

        A reduction gives a new column: `total=("amount", "sum")`. There are sum, min, max and mean
        of numbers, and count of all cells that are not missing.
        """
        names = [keys] if isinstance(keys, str) else list(keys)
        places = [self._place(name) for name in names]
        for column, how in reductions.values():
            self._place(column)
            if how not in _REDUCTIONS:
                raise ValueError(f"unknown reduction {how!r}")
        groups: dict[tuple, list[tuple[Cell, ...]]] = {}
        for row in self._rows:
            # True == 1 in Python, but a truth value and a number are two different keys here.
            identity = tuple((isinstance(row[at], bool), row[at]) for at in places)
            groups.setdefault(identity, []).append(row)
        return Table(
            [*names, *reductions],
            (
                [*(rows[0][at] for at in places), *self._reduced(rows, reductions.values())]
                for rows in groups.values()
            ),
        )

    def _reduced(
        self, rows: list[tuple[Cell, ...]], reductions: Iterable[tuple[str, str]]
    ) -> Iterator[Cell]:
        for column, how in reductions:
            at = self._place(column)
            yield _REDUCTIONS[how](column, [row[at] for row in rows])

    def _place(self, name: str) -> int:
        if name not in self.columns:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.columns)}")
        return self.columns.index(name)


def _numbers(column: str, cells: Iterable[Cell]) -> list[Number]:
    present = [cell for cell in cells if cell is not None]
    for cell in present:
        if isinstance(cell, bool) or not isinstance(cell, (int, float)):
            raise TypeError(f"the column {column!r} holds {cell!r}, which is not a number")
    return present


def _count(column: str, cells: list[Cell]) -> int:
    return sum(cell is not None for cell in cells)


def _sum(column: str, cells: list[Cell]) -> Number:
    numbers = _numbers(column, cells)
    # Whole numbers are added exactly; fsum rounds only once, however the others differ in size.
    whole = all(isinstance(number, int) for number in numbers)
    return sum(numbers) if whole else math.fsum(numbers)


def _min(column: str, cells: list[Cell]) -> Number | None:
    return min(_numbers(column, cells), default=None)


def _max(column: str, cells: list[Cell]) -> Number | None:
    return max(_numbers(column, cells), default=None)


def _mean(column: str, cells: list[Cell]) -> float | None:
    numbers = _numbers(column, cells)
    return statistics.fmean(numbers) if numbers else None


_REDUCTIONS: dict[str, Callable[[str, list[Cell]], Cell]] = {
    "count": _count,
    "sum": _sum,
    "min": _min,
    "max": _max,
    "mean": _mean,
}

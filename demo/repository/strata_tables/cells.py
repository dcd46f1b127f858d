"""What the text of one cell means."""

from __future__ import annotations

import math
import re

Cell = int | float | bool | str | None

_WORDS: dict[str, bool | None] = {
    "": None,
    "na": None,
    "n/a": None,
    "null": None,
    "true": True,
    "yes": True,
    "false": False,
    "no": False,
}
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)", re.ASCII)
_DECIMAL = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?", re.ASCII)


def parse_cell(text: str) -> Cell:
    """The number, truth value or nothing that the text spells, else the text as it is.

    A number with leading zeros ("0042") is a name and not a number, and so is one that no float
    can hold.
    """
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if _INTEGER.fullmatch(word):
        return int(word) if len(word) <= 300 else text
    if _DECIMAL.fullmatch(word) and math.isfinite(float(word)):
        return float(word)
    return text

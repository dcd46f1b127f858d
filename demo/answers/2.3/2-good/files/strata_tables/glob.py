r"""Patterns for column names, as shells have them for file names.

`*` is any text, `?` any character, `[a-z_]` one of a set, `[!a-z]` one that is not in it, and `\`
takes the next character as it is. Nothing else is special.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class GlobError(ValueError):
    """The pattern is wrong at `position`."""

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} at position {position}")
        self.position = position


class Glob:
    """A compiled pattern. Matching takes at most len(pattern) * len(name) steps."""

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        self.pattern = pattern
        self._ignore_case = ignore_case
        self._parts = _parse(pattern)

    def matches(self, name: str) -> bool:
        """Whether the pattern stands for the whole name.

        After a mismatch only the last star is tried at its next place: a star before it could not
        reach anything that this one cannot, so there is nothing to search through.
        """
        part = at = 0
        star: int | None = None  # the last star passed, and how far into the name it reaches
        reach = 0
        while at < len(name):
            if part < len(self._parts) and self._parts[part] is None:
                star, reach = part, at
                part += 1
            elif part < len(self._parts) and self._holds(self._parts[part], name[at]):
                part += 1
                at += 1
            elif star is not None:
                reach += 1
                part, at = star + 1, reach
            else:
                return False
        return all(rest is None for rest in self._parts[part:])

    def _holds(self, characters: _Characters, character: str) -> bool:
        if not self._ignore_case:
            return characters.hold(character)
        forms = {character, character.lower(), character.upper()}
        found = any(characters.contain(form) for form in forms)
        return found != characters.negated


def select(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that the patterns pick, in the order of the names.

    The patterns are taken in turn: one that begins with `!` takes out again what it matches.
    """
    names = list(names)
    chosen: set[str] = set()
    for pattern in patterns:
        takes_out = pattern.startswith("!")
        glob = Glob(pattern[1:] if takes_out else pattern)
        matching = {name for name in names if glob.matches(name)}
        chosen = chosen - matching if takes_out else chosen | matching
    return [name for name in names if name in chosen]


@dataclass(frozen=True)
class _Characters:
    """Which characters may stand at one place."""

    ranges: tuple[tuple[str, str], ...]  # both ends belong to it
    negated: bool = False

    def contain(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges)

    def hold(self, character: str) -> bool:
        return self.contain(character) != self.negated


_ANY = _Characters((), negated=True)


def _parse(pattern: str) -> list[_Characters | None]:
    """The pattern's parts; None is a star."""
    parts: list[_Characters | None] = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "*":
            parts.append(None)
            at += 1
        elif pattern[at] == "?":
            parts.append(_ANY)
            at += 1
        elif pattern[at] == "[":
            characters, at = _parse_set(pattern, at)
            parts.append(characters)
        else:
            character, at = _parse_character(pattern, at)
            parts.append(_Characters(((character, character),)))
    return parts


def _parse_character(pattern: str, at: int) -> tuple[str, int]:
    """The character there, without the backslash that may protect it, and the place after it."""
    if pattern[at] != "\\":
        return pattern[at], at + 1
    if at + 1 == len(pattern):
        raise GlobError("nothing follows the backslash", at)
    return pattern[at + 1], at + 2


def _parse_set(pattern: str, opened: int) -> tuple[_Characters, int]:
    at = opened + 1
    negated = pattern.startswith("!", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while at < len(pattern):
        if pattern[at] == "]" and ranges:  # as the first of its set it stands for itself
            return _Characters(tuple(ranges), negated), at + 1
        begin = at
        low, at = _parse_character(pattern, at)
        high = low
        if pattern.startswith("-", at) and at + 1 < len(pattern) and pattern[at + 1] != "]":
            high, at = _parse_character(pattern, at + 1)
        if high < low:
            raise GlobError(f"the range {low}-{high} is empty", begin)
        ranges.append((low, high))
    raise GlobError("a set is opened and never closed", opened)

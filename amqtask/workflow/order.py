r"""Which steps run side by side and which after others: any order of steps as chains and groups.

An order that chains and groups can say, one after the other and side by side, is called
series-parallel. What is none has an N in it somewhere:

    a   b        c waits for a, d waits for both; no nesting of chains and groups says
    | \ |       exactly that. So c waits for b, too: group(a, b), then group(c, d)
    c   d

Waiting for more than was asked for is added until no N is left, each time where it adds least,
and told (`Shape.added`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from amqtask.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Series:
    """Parts that run one after the other."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Parallel:
    """Parts that run side by side."""

    parts: tuple[Part, ...]


#: A step, by its name, or some of them in order.
Part: TypeAlias = "str | Series | Parallel"


@dataclass(frozen=True, slots=True)
class Shape:
    """Steps in an order that chains and groups can say.

    Attributes:
        whole: All of them.
        added: Pairs of steps, of which the second waits for the first though nobody asked for it.
    """

    whole: Part
    added: tuple[tuple[str, str], ...]


def shape(after: Mapping[str, Sequence[str]]) -> Shape:
    """Return the shape of steps.

    Args:
        after: By the name of each step, those that it waits for.

    Raises:
        ConfigurationError: There are none, or they wait for each other in a circle.
    """
    if not after:
        raise ConfigurationError("a workflow has no steps", hint='wf.step("name", task.s(...))')
    before = _closure(after)
    asked = {name: set(found) for name, found in before.items()}
    while (whole := _reduced(list(after), before)) is None:
        first, second = _cure(list(after), before)
        _order(before, first, second)
    added = tuple(
        (first, second)
        for second in after
        for first in after
        if first in _covers(before, second) and first not in asked[second]
    )
    return Shape(whole, added)


def direct(after: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return what each step waits for, less what follows from the rest.

    Raises:
        ConfigurationError: They wait for each other in a circle.
    """
    before = _closure(after)
    return {name: [each for each in after if each in _covers(before, name)] for name in after}


# -- orders, as the set of all that is before each step ---------------------------------


def _closure(after: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    before: dict[str, set[str]] = {}
    waiting = dict(after)
    while waiting:
        ready = [name for name, steps in waiting.items() if all(each in before for each in steps)]
        if not ready:
            names = ", ".join(map(repr, waiting))
            raise ConfigurationError(
                f"steps {names} wait for each other in a circle",
                hint="a step can only be after steps that do not depend on it",
            )
        for name in ready:
            steps = waiting.pop(name)
            before[name] = set(steps).union(*(before[each] for each in steps))
    return before


def _covers(before: Mapping[str, set[str]], name: str) -> set[str]:
    """Return what comes right before a step, nothing between."""
    found = before[name]
    return found - set().union(*(before[each] for each in found)) if found else set()


def _order(before: dict[str, set[str]], first: str, second: str) -> None:
    """Put a step before another one."""
    earlier = before[first] | {first}
    for name, found in before.items():
        if name == second or second in found:
            found |= earlier


# -- series and parallel ------------------------------------------------------------------


def _reduced(names: Sequence[str], before: Mapping[str, set[str]]) -> Part | None:
    """Return an order as series and parallels, or None where it is none."""
    if len(names) == 1:
        return names[0]
    if len(parts := _components(names, before, comparable=True)) > 1:
        found = [_reduced(part, before) for part in parts]
        kept = [part for part in found if part is not None]
        return Parallel(tuple(kept)) if len(kept) == len(found) else None
    if len(parts := _components(names, before, comparable=False)) > 1:
        parts.sort(key=lambda part: min(len(before[name]) for name in part))
        found = [_reduced(part, before) for part in parts]
        kept = [part for part in found if part is not None]
        return Series(tuple(kept)) if len(kept) == len(found) else None
    return None


def _components(
    names: Sequence[str], before: Mapping[str, set[str]], *, comparable: bool
) -> list[list[str]]:
    """Split steps into parts between which none is, or all are, in an order."""
    left = list(names)
    parts: list[list[str]] = []
    while left:
        part = [left.pop(0)]
        for one in part:
            linked = [
                other
                for other in left
                if (one in before[other] or other in before[one]) is comparable
            ]
            part += linked
            left = [other for other in left if other not in linked]
        parts.append([name for name in names if name in part])
    return parts


def _cure(names: Sequence[str], before: Mapping[str, set[str]]) -> tuple[str, str]:
    """Return which step to put before which other one, so that an N goes; the least that helps."""
    best: tuple[int, str, str] | None = None
    later = {name: {each for each in names if name in before[each]} for name in names}
    for a in names:
        for b in names:
            if a == b or a in before[b] or b in before[a]:
                continue
            for c in names:
                if c not in later[a] or c in later[b] or c in before[b]:
                    continue
                both = later[a] & later[b] - later[c] - before[c] - {c}
                if not both:
                    continue
                cost = len((before[b] | {b}) - before[c]) * len(later[c] | {c})
                if best is None or cost < best[0]:
                    best = cost, b, c
    assert best is not None, "an order without an N is series-parallel"
    return best[1], best[2]

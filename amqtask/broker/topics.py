"""Topic patterns, found by walking a tree of their words.

A pattern is words joined by dots; ``*`` stands for one word and ``#`` for any
number, none included. Patterns that begin alike share their branches, so a
key meets only those that can match: with a word for each of the 26 delay levels before each queue's
name, trying every pattern would be most of the broker's work.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: list[T] = []


def _words(key: str) -> list[str]:
    # to RabbitMQ an empty key has no word, though "." has two empty ones
    return key.split(".") if key else []


class TopicTree(Generic[T]):
    """Values by topic pattern."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, value: T) -> None:
        """Keep ``value`` under ``pattern``."""
        node = self._root
        for word in _words(pattern):
            node = node.children.setdefault(word, _Node())
        node.values.append(value)

    def remove(self, pattern: str, value: T) -> None:
        """Forget a value that `add` was given; branches that lead nowhere go with it."""
        path = [self._root]
        words = _words(pattern)
        for word in words:
            path.append(path[-1].children[word])
        path[-1].values.remove(value)
        for word, above, node in zip(
            reversed(words), reversed(path[:-1]), reversed(path[1:]), strict=True
        ):
            if node.values or node.children:
                break
            del above.children[word]

    def match(self, key: str) -> list[T]:
        """Return the values of all patterns that match ``key``, each once."""
        words = _words(key)
        count = len(words)
        found: list[T] = []
        # a place is a node and how many words lead there; several # lead to one place often
        seen: set[tuple[int, int]] = set()
        stack: list[tuple[_Node[T], int]] = [(self._root, 0)]
        while stack:
            node, used = stack.pop()
            place = (id(node), used)
            if place in seen:
                continue
            seen.add(place)
            if used == count:
                found += node.values
            children = node.children
            if not children:
                continue
            if used < count:
                stack += [
                    (children[word], used + 1)
                    for word in {words[used], "*"}
                    if word in children and word != "#"
                ]
            if (rest := children.get("#")) is not None:
                stack += [(rest, after) for after in range(used, count + 1)]
        return found

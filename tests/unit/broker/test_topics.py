"""The tree finds what a naive matcher finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqtask.broker.topics import TopicTree

_WORDS = st.sampled_from(["a", "b", "c", ""])
_KEYS = st.lists(_WORDS, max_size=6).map(".".join)
_PATTERNS = st.lists(_WORDS | st.sampled_from(["*", "#"]), max_size=6).map(".".join)


def _matches(pattern: list[str], key: list[str]) -> bool:
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(_matches(pattern[1:], key[skip:]) for skip in range(len(key) + 1))
    return bool(key) and pattern[0] in {"*", key[0]} and _matches(pattern[1:], key[1:])


def _naive(pattern: str, key: str) -> bool:
    # an empty key has no words
    return _matches(pattern.split(".") if pattern else [], key.split(".") if key else [])


@given(st.lists(_PATTERNS, max_size=12), _KEYS)
def test_finds_what_matches(patterns, key):
    tree: TopicTree[int] = TopicTree()
    for number, pattern in enumerate(patterns):
        tree.add(pattern, number)
    wanted = [number for number, pattern in enumerate(patterns) if _naive(pattern, key)]
    assert sorted(tree.match(key)) == wanted


@given(st.lists(_PATTERNS, max_size=12), st.lists(st.integers(0, 11)), _KEYS)
def test_finds_nothing_that_was_removed(patterns, gone, key):
    tree: TopicTree[int] = TopicTree()
    for number, pattern in enumerate(patterns):
        tree.add(pattern, number)
    left = dict(enumerate(patterns))
    for number in gone:
        if number in left:
            tree.remove(left.pop(number), number)
    wanted = [number for number, pattern in left.items() if _naive(pattern, key)]
    assert sorted(tree.match(key)) == wanted
    for number, pattern in left.items():
        tree.remove(pattern, number)
    assert not tree._root.children


def test_many_hashes_are_no_trap():
    """A pattern that asks for endless combinations is walked in little time."""
    tree: TopicTree[int] = TopicTree()
    tree.add(".".join(["#"] * 20 + ["z"]), 1)
    assert tree.match(".".join(["a"] * 60)) == []


def test_wildcards_in_a_key_are_words():
    tree: TopicTree[str] = TopicTree()
    for pattern in ("*", "#", "a"):
        tree.add(pattern, pattern)
    assert sorted(tree.match("*")) == ["#", "*"]
    assert sorted(tree.match("#")) == ["#", "*"]

"""Short text for values: bounded, and never an error."""

from __future__ import annotations

from amqtask.message.text import at, brief, cut, sendable, show


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_repr_is_whole_when_it_fits():
    """A value whose repr fits is shown as it is."""
    assert brief((2, 3), 1024) == "(2, 3)"


def test_repr_is_cut_and_marked():
    """A repr over the size is cut to exactly the size and marked."""
    text = brief("x" * 2000, 1024)
    assert len(text) == 1024
    assert text.endswith("xxx...")


def test_raising_repr_costs_only_its_own_place():
    """An object whose repr raises is named by its class; its neighbours are shown."""
    assert brief((1, Rude()), 200).startswith("(1, <Rude instance at ")


def test_raising_repr_in_a_key():
    """Even a dict key that cannot be shown gives text."""
    assert "Rude instance" in brief({Rude(): 1}, 200)


def test_deep_nesting_is_shown_bounded():
    """A value nested deeper than the recursion limit has a repr all the same."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert brief(deep, 80) == "[[[[[...]]]]]"


def test_large_values_are_shown_by_their_first_elements():
    """Without the whole repr, a long list costs a few elements."""
    assert brief(list(range(100)), 1024, whole=False).endswith("14, 15, ...]")


def test_lone_surrogates_are_escaped():
    """Text for a header encodes as UTF-8 in any case, and stays within its size."""

    class Odd:
        def __repr__(self) -> str:
            return "\ud800" * 100

    text = brief(Odd(), 80)
    assert text.encode("utf-8")
    assert len(text) == 80
    assert sendable("é\udfff") == "é\\udfff"


def test_show_is_short():
    """Values in error messages stay short."""
    assert len(show("y" * 10_000)) <= 80


def test_path_is_written_as_subscripts():
    """A path reads as Python would subscript it, and is nothing at the root."""
    assert at((0, "a", 2)) == " at [0]['a'][2]"
    assert at(()) == ""


def test_cut_leaves_short_text_alone():
    """Text of exactly the size is not cut."""
    assert cut("abc", 3) == "abc"
    assert cut("abcdef", 5) == "ab..."

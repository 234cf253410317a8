"""The tables of serializers, and the two binary ones."""

from __future__ import annotations

import builtins
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import ConfigurationError, EncodeError, MalformedMessage
from amqtask.message.serializers import JSON, accepted, serializer
from tests.unit.message.strategies import outcome, some


def test_content_types():
    """Names, content types and encodings are Celery's."""
    found = [serializer(name) for name in ("json", "msgpack", "pickle")]
    assert [(one.content_type, one.content_encoding) for one in found] == [
        ("application/json", "utf-8"),
        ("application/x-msgpack", "binary"),
        ("application/x-python-serialize", "binary"),
    ]
    assert serializer("json") is JSON


def test_unknown_name():
    """An unknown serializer is a configuration error with a near name."""
    with pytest.raises(ConfigurationError) as caught:
        serializer("jsn")
    assert str(caught.value) == "no serializer 'jsn', did you mean 'json'?"
    assert caught.value.hint == "there are json, msgpack, pickle"


def test_accepted_lists_only_what_was_named():
    """Pickle is not read unless the application lists it."""
    assert set(accepted(["json"])) == {"application/json"}
    assert set(accepted(["json", "pickle"])) == {
        "application/json",
        "application/x-python-serialize",
    }


def test_missing_msgpack_names_the_extra(monkeypatch):
    """Without the package the error says what to install."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "msgpack":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigurationError) as caught:
        serializer.__wrapped__("msgpack")
    assert str(caught.value) == "serializer 'msgpack' is not installed"
    assert caught.value.hint == 'pip install "amqtask[msgpack]"'


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.binary()
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("name", ["msgpack", "pickle"])
@some
@given(value=plain)
def test_binary_round_trip(name, value):
    """Plain data comes back equal."""
    if name == "msgpack":
        pytest.importorskip("msgpack")
    codec = serializer(name)
    assert codec.loads(codec.dumps(value)) == value


@pytest.mark.parametrize("name", ["msgpack", "pickle"])
def test_kombu_interoperates(name):
    """kombu reads what we write, and the other way round."""
    kombu = pytest.importorskip("kombu.serialization")
    if name == "msgpack":
        pytest.importorskip("msgpack")
    codec, value = serializer(name), [[2, "é", b"\xff"], {"k": None}]
    content_type, encoding, data = kombu.dumps(value, serializer=name)
    assert (content_type, encoding) == (codec.content_type, codec.content_encoding)
    assert codec.loads(data) == value
    assert kombu.loads(codec.dumps(value), content_type, encoding, accept=[content_type]) == value


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (
            "msgpack",
            [{"a": [1, object()]}],
            "value of type 'object' at [0]['a'][1] does not serialise as msgpack",
        ),
        ("msgpack", (1, 1 << 70), "value of type 'int' at [1] does not serialise as msgpack"),
        (
            "pickle",
            [{"a": [1, (_ for _ in range(1))]}],
            "value of type 'generator' at [0]['a'][1] does not serialise as pickle",
        ),
    ],
)
def test_refusal_names_the_place(name, value, text):
    """The binary serializers name the innermost value as JSON does."""
    if name == "msgpack":
        pytest.importorskip("msgpack")
    with pytest.raises(EncodeError) as caught:
        serializer(name).dumps(value)
    assert str(caught.value) == text
    assert caught.value.path


def test_msgpack_cycle():
    """A cycle ends as an encode error, not in endless search for the culprit."""
    pytest.importorskip("msgpack")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncodeError):
        serializer("msgpack").dumps(loop)


@some
@given(st.binary())
def test_any_bytes_as_msgpack(data):
    """Any bytes read as a value or are malformed."""
    pytest.importorskip("msgpack")
    found = outcome(lambda: serializer("msgpack").loads(data))
    if isinstance(found, MalformedMessage):
        assert str(found).startswith("not valid msgpack: ")
    else:
        assert not isinstance(found, Exception)


def test_broken_pickle():
    """Broken or exploding pickles are malformed."""
    with pytest.raises(MalformedMessage, match=r"^not valid pickle: "):
        serializer("pickle").loads(b"\x80\x04junk")
    with pytest.raises(MalformedMessage, match="ZeroDivisionError"):
        serializer("pickle").loads(b"c_operator\ntruediv\n(I1\nI0\ntR.")
    assert serializer("pickle").loads(pickle.dumps({1: 2})) == {1: 2}

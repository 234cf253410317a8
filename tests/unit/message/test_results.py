"""Result documents and the exceptions in them."""

from __future__ import annotations

import json
import sys
import types
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask import errors
from amqtask.errors import ContentDisallowed, EncodeError, MalformedMessage, RemoteError
from amqtask.message.compression import compress
from amqtask.message.results import (
    RemoteTraceback,
    ResultMeta,
    decode_exception,
    decode_meta,
    encode_exception,
    encode_meta,
)
from amqtask.message.serializers import accepted
from tests.unit.message.strategies import some, values

JSON_ONLY = accepted(["json"])
DONE = datetime(2026, 11, 23, 3, 28, 30, 190362, tzinfo=UTC)


def read(document: Any) -> ResultMeta:
    return decode_meta(json.dumps(document).encode(), "application/json", JSON_ONLY)


def test_document():
    """The document is Celery's, key for key; group and parent only when set."""
    meta = ResultMeta("T", "SUCCESS", 5, date_done=DONE)
    assert json.loads(encode_meta(meta)) == {
        "status": "SUCCESS",
        "result": 5,
        "traceback": None,
        "children": [],
        "date_done": "2026-11-23T03:28:30.190362+00:00",
        "task_id": "T",
    }
    grouped = json.loads(encode_meta(ResultMeta("T", "STARTED", group_id="G", parent_id="P")))
    assert (grouped["group_id"], grouped["parent_id"], grouped["date_done"]) == ("G", "P", None)


@some
@given(
    values,
    st.sampled_from(["SUCCESS", "STARTED", "custom"]),
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.none() | st.text("ab", min_size=1),
)
def test_round_trip(result, status, done, name):
    """A document reads as it was written."""
    meta = ResultMeta("T", status, result, name, [[["C", None], None]], done, name, name)
    assert decode_meta(encode_meta(meta), "application/json", JSON_ONLY) == meta


def test_result_that_does_not_serialise():
    """The error names the place in what the task returned."""
    with pytest.raises(EncodeError) as caught:
        encode_meta(ResultMeta("T", "SUCCESS", {"a": object()}))
    assert str(caught.value) == (
        "cannot encode the result: value of type 'object' at ['a'] does not serialise as json"
    )
    assert caught.value.path == ("a",)


def test_unknown_keys_are_ignored():
    """Extended results carry more; it is not needed."""
    assert read({"task_id": "T", "status": "SUCCESS", "name": "t.add", "args": [1]}) == ResultMeta(
        "T", "SUCCESS", children=[]
    )


def test_naive_date_done_is_utc():
    """Old writers leave the offset out."""
    meta = read({"task_id": "T", "status": "SUCCESS", "date_done": "2026-11-23T03:00:00"})
    assert meta.date_done == datetime(2026, 11, 23, 3, tzinfo=UTC)


def test_compressed_result():
    """A result Celery 5.7 compressed names its method itself."""
    mime, packed = compress("zlib", encode_meta(ResultMeta("T", "SUCCESS", 5)))
    data = b"\0celery-compressed\0" + mime.encode() + b"\0" + packed
    assert decode_meta(data, "application/json", JSON_ONLY).result == 5
    with pytest.raises(errors.DecodedTooLarge):
        decode_meta(data, "application/json", JSON_ONLY, max_decoded_size=10)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([1], "result is [1], not a result document"),
        ({"status": "SUCCESS"}, "task_id of a result is None, not text"),
        ({"task_id": "T"}, "status of a result is None, not text"),
        ({"task_id": "T", "status": ""}, "status of a result is '', not text"),
        ({"task_id": "T", "status": "S", "traceback": 5}, "traceback of a result is 5, not text"),
        ({"task_id": "T", "status": "S", "children": 5}, "children of a result are 5, not a list"),
        (
            {"task_id": "T", "status": "S", "date_done": "x"},
            "date_done of a result is 'x', not a time",
        ),
    ],
)
def test_malformed_document(document, text):
    """What is no result document is malformed, and the text says why."""
    with pytest.raises(MalformedMessage) as caught:
        read(document)
    assert str(caught.value) == text


def test_content_of_results():
    """Results are read only with what is accepted."""
    with pytest.raises(MalformedMessage, match=r"^result has no content type$"):
        decode_meta(b"{}", None, JSON_ONLY)
    with pytest.raises(ContentDisallowed, match=r"'text/plain' of a result is not accepted"):
        decode_meta(b"{}", "text/plain", JSON_ONLY)


@some
@given(st.binary())
def test_any_bytes(data):
    """Any bytes are a result or a message error."""
    with pytest.raises(errors.MessageError):
        decode_meta(data, "application/json", JSON_ONLY)


# -- exceptions -------------------------------------------------------------------


class Outer:
    class Inner(Exception):
        pass


class NeedsMore(Exception):
    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(code)
        self.text = text


class Unprintable(Exception):
    def __init__(self, *, text: str) -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        return self.text


def known(monkeypatch: pytest.MonkeyPatch, **members: Any) -> str:
    """Put the classes into an imported module, wherever this test file was loaded from."""
    module = types.ModuleType("shop_errors")
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, "shop_errors", module)
    return "shop_errors"


def document(exc_type: str, message: Any = (), module: str | None = "builtins") -> dict[str, Any]:
    return {"exc_type": exc_type, "exc_message": message, "exc_module": module}


def same(exc: BaseException) -> BaseException:
    """Send an exception over the wire."""
    return decode_exception(json.loads(json.dumps(encode_exception(exc))))


def test_encoded_exception():
    """Class, arguments and module, as Celery stores them."""
    assert encode_exception(ValueError("bad", 1)) == {
        "exc_type": "ValueError",
        "exc_message": ["bad", 1],
        "exc_module": "builtins",
    }
    assert encode_exception(Outer.Inner())["exc_type"] == "Outer.Inner"


def test_arguments_that_do_not_serialise():
    """They become their repr, so that an outcome is always told."""

    class Rude:
        def __repr__(self) -> str:
            raise ValueError

    assert encode_exception(ValueError({1}, 2))["exc_message"] == ["{1}", 2]
    assert encode_exception(ValueError(Rude()))["exc_message"][0].startswith("<Rude instance at ")


@some
@given(st.lists(values, max_size=3))
def test_exception_round_trip(args):
    """A built-in exception comes back with its class and arguments."""
    data = encode_meta(ResultMeta("T", "FAILURE", encode_exception(KeyError(*args))))
    exc = decode_exception(decode_meta(data, "application/json", JSON_ONLY).result)
    assert type(exc) is KeyError
    assert exc.args == tuple(args)


def test_own_classes(monkeypatch):
    """A class whose module is imported is found by its qualified name and built."""
    module = known(monkeypatch, Outer=Outer, NeedsMore=NeedsMore)
    assert type(decode_exception(document("Outer.Inner", ["x"], module))) is Outer.Inner
    exc = decode_exception(document("NeedsMore", [5], module))
    assert type(exc) is NeedsMore
    assert exc.args == (5,)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (document("OutOfStock", ["3 left"], "never_imported"), "OutOfStock: 3 left"),
        (document("OutOfStock", ["a", 1], None), "OutOfStock: ('a', 1)"),
        (document("OutOfStock", [], "never_imported"), "OutOfStock"),
        (document("OutOfStock", "text of an old writer", "x"), "OutOfStock: text of an old writer"),
        (document("OutOfStock", None, "x"), "OutOfStock"),
        (document("SystemExit", [1]), "SystemExit: 1"),
        (document("KeyboardInterrupt"), "KeyboardInterrupt"),
        (document("GeneratorExit"), "GeneratorExit"),
        (document("CancelledError", [], "asyncio.exceptions"), "CancelledError"),
        (document("system", ["true"], "os"), "system: true"),
        (document("path.join", ["a"], "os"), "path.join: a"),
        (document("int", ["5"]), "int: 5"),
        (
            document("ExceptionGroup", ["m", "[ValueError()]"]),
            "ExceptionGroup: ('m', '[ValueError()]')",
        ),
        (document("ValueError", ["x"], ["odd"]), "ValueError: x"),  # type: ignore[arg-type]
        ("rubbish", "it failed with 'rubbish', which is no encoded exception"),
        (None, "it failed with None, which is no encoded exception"),
        ({"exc_message": []}, "it failed with {'exc_message': []}, which is no encoded exception"),
    ],
)
def test_remote_error(found, text):
    """What is not a known, ordinary exception class comes back as RemoteError, and nothing runs."""
    exc = decode_exception(found)
    assert type(exc) is RemoteError
    assert str(exc) == text


def test_remote_error_keeps_the_original():
    """Name, module and arguments are in attributes, and go on under the same name."""
    found = document("OutOfStock", ["3 left"], "never_imported")
    exc = decode_exception(found)
    assert isinstance(exc, RemoteError)
    assert (exc.exc_type, exc.exc_module, exc.exc_args) == (
        "OutOfStock",
        "never_imported",
        ("3 left",),
    )
    assert encode_exception(exc) == found


def test_exception_that_cannot_be_shown(monkeypatch):
    """A class whose text fails without its own __init__ is not handed to a log."""
    module = known(monkeypatch, Unprintable=Unprintable)
    assert type(decode_exception(document("Unprintable", ["x"], module))) is RemoteError


def test_nothing_is_imported_or_called(monkeypatch):
    """Neither a module's __getattr__ nor an import runs for a stored name."""

    def trap(name: str) -> Any:
        pytest.fail(f"asked for {name}")

    module = known(monkeypatch, __getattr__=trap)
    assert type(decode_exception(document("Missing", [], module))) is RemoteError
    before = set(sys.modules)
    decode_exception(document("Error", [], "sqlite3.dbapi2"))
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("TaskRevokedError", errors.TaskRevoked),
        ("TimeLimitExceeded", errors.TimeLimitExceeded),
        ("SoftTimeLimitExceeded", errors.SoftTimeLimitExceeded),
        ("WorkerLostError", errors.WorkerLost),
        ("MaxRetriesExceededError", errors.RetriesExhausted),
        ("NotRegistered", errors.UnknownTask),
    ],
)
def test_celery_names(name, cls):
    """Celery's own outcomes are amqtask's, in both directions."""
    exc = decode_exception(document(name, ["revoked"], "celery.exceptions"))
    assert type(exc) is cls
    assert exc.args == ("revoked",)
    assert encode_exception(exc) == document(name, ["revoked"], "celery.exceptions")


def test_signals_are_no_outcome_to_raise():
    """Retry would act on whoever reads it, so it comes back as RemoteError."""
    assert type(same(errors.Retry("later"))) is RemoteError


def test_remote_traceback():
    """The remote traceback is the cause, marked off in its text."""
    exc = decode_exception(document("ValueError", ["x"]), "Traceback ...\nValueError: x\n")
    assert isinstance(exc.__cause__, RemoteTraceback)
    assert str(exc.__cause__) == '\n"""\nTraceback ...\nValueError: x\n"""'
    assert decode_exception(document("ValueError")).__cause__ is None


def test_celery_reads_ours_and_we_read_celery():
    """Documents cross between amqtask and Celery 5.7's own backend code."""
    celery = pytest.importorskip("celery")
    base = pytest.importorskip("celery.backends.base")
    backend = base.Backend(app=celery.Celery(set_as_current=False))

    done = backend.decode_result(encode_meta(ResultMeta("T", "SUCCESS", {"a": DONE})))
    assert (done["status"], done["result"], done["task_id"]) == ("SUCCESS", {"a": DONE}, "T")
    failed = ResultMeta("T", "FAILURE", encode_exception(ValueError("bad", 1)), "Traceback")
    exc = backend.decode_result(encode_meta(failed))["result"]
    assert type(exc) is ValueError
    assert exc.args == ("bad", 1)

    for result, status in ((5, "SUCCESS"), (KeyError("k"), "FAILURE")):
        encoded = backend.encode_result(result, status)
        theirs = backend._get_result_meta(encoded, status, None, None)
        data = backend.encode({**theirs, "task_id": "T"}).encode()
        meta = decode_meta(data, "application/json", JSON_ONLY)
        assert (meta.task_id, meta.status) == ("T", status)
        assert meta.date_done is not None
        if status == "SUCCESS":
            assert meta.result == 5
        else:
            assert repr(decode_exception(meta.result)) == "KeyError('k')"


@pytest.mark.parametrize("name", ["TimeLimitExceeded", "SoftTimeLimitExceeded", "WorkerLostError"])
def test_what_celerys_pool_raises(name):
    """It says that it comes from billiard, which is Celery's as much as its own module is."""
    theirs = decode_exception(document(name, ["over"], "billiard.exceptions"))
    assert type(theirs) is type(decode_exception(document(name, ["over"], "celery.exceptions")))

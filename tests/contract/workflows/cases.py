"""What workflows mean, case by case: the same on every broker and with every backend.

The rules are those of Celery's canvas guide; where a case differs from Celery on
purpose, `docs/guide/workflows.md` says so in its table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from amqtask import ArgumentsError, ChordError, TaskRevoked, WorkflowFailed, chain, chord, group
from tests.contract.workflows.tasks import Tasks


@dataclass(frozen=True, slots=True)
class Case:
    """One rule.

    Attributes:
        name: What it says.
        build: Makes the signature; the tasks' mark is set.
        value: What it ends with.
        args: Arguments that it is sent with.
        kwargs: The same by name.
        said: Options that it is sent with.
        error: What its handle raises instead, and a part of the text.
        notes: What its tasks note down, in any order.
        look: Looks at the value instead of ``value``.
    """

    name: str
    build: Callable[[Tasks], Any]
    value: Any = None
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] | None = None
    said: dict[str, Any] | None = None
    error: tuple[type[BaseException], str] | None = None
    notes: Sequence[Any] = ()
    look: Callable[[Any], bool] | None = None


def _json(t: Tasks, made: Any) -> Any:
    return t.app.signature(json.loads(json.dumps(made.as_dict())))


def _set(made: Any, **said: Any) -> Any:
    return made.set(**said)


SIGNATURES = [
    Case("a whole call", lambda t: t.add.s(2, 2), 4),
    Case("arguments given later come first", lambda t: t.sub.s(2), 8, args=[10]),
    Case("keywords are joined", lambda t: t.kw.s(b=3), [1, 3, 5], args=[1], kwargs={"c": 5}),
    Case("keywords given later win", lambda t: t.kw.s(1, c=3), [1, 0, 5], kwargs={"c": 5}),
    Case("what is immutable takes no arguments", lambda t: t.add.si(2, 2), 4, args=[100]),
    Case("set(immutable=True) is the same", lambda t: t.add.s(2, 2).set(immutable=True), 4, [9]),
    Case(
        "a clone leaves the original alone",
        lambda t: (s := t.sub.s(2), s.clone((10,)), s)[0],
        5,
        [7],
    ),
    Case("a clone takes arguments and options", lambda t: t.sub.s(2).clone((10,), priority=3), 8),
    Case("by name", lambda t: t.app.signature("w.add", (1, 2)), 3),
    Case("through JSON", lambda t: _json(t, t.add.s(1, 2)), 3),
    Case("task.signature has options", lambda t: t.add.signature((1, 2), countdown=0), 3),
    Case(
        "task.options(...).s",
        lambda t: t.about.options(priority=4).s(),
        look=lambda v: v["priority"] == 4,
    ),
    Case("set", lambda t: t.about.s().set(priority=5), look=lambda v: v["priority"] == 5),
    Case(
        "options given when sent win",
        lambda t: t.about.s().set(priority=5),
        said={"priority": 2},
        look=lambda v: v["priority"] == 2,
    ),
    Case(
        "what is immutable takes options",
        lambda t: t.about.si(),
        said={"priority": 2},
        look=lambda v: v["priority"] == 2,
    ),
    Case(
        "headers are joined",
        lambda t: t.about.s().set(headers={"a": 1}),
        said={"headers": {"b": 2}},
        look=lambda v: v["headers"] == {"a": 1, "b": 2},
    ),
    Case("an async task", lambda t: t.aadd.s(1, 2), 3),
]

CALLBACKS = [
    Case("link gets the value", lambda t: t.add.s(1, 2).link(t.note()), 3, notes=[[3]]),
    Case(
        "link, after its own arguments", lambda t: t.add.s(1, 2).link(t.note(7)), 3, notes=[[3, 7]]
    ),
    Case(
        "two links",
        lambda t: t.add.s(1, 2).link(t.note(1)).link(t.note(2)),
        3,
        notes=[[3, 1], [3, 2]],
    ),
    Case(
        "an immutable link gets nothing",
        lambda t: t.add.s(1, 2).link(t.note_only(7)),
        3,
        notes=[[7]],
    ),
    Case(
        "link of a chain is that of its last step",
        lambda t: chain(t.add.s(1, 2), t.add.s(3)).link(t.note()),
        6,
        notes=[[6]],
    ),
    Case(
        "link of a step within a chain",
        lambda t: t.add.s(1, 2).link(t.note()) | t.add.s(3),
        6,
        notes=[[3]],
    ),
    Case(
        "link of a chord is that of its body",
        lambda t: chord([t.add.s(1, 1), t.add.s(2, 2)], t.xsum.s()).link(t.note()),
        6,
        notes=[[6]],
    ),
    Case("link to a chain", lambda t: t.add.s(1, 2).link(t.add.s(10) | t.note()), 3, notes=[[13]]),
    Case(
        "link to a group",
        lambda t: t.add.s(1, 2).link(group(t.note(1), t.note(2))),
        3,
        notes=[[3, 1], [3, 2]],
    ),
    Case(
        "link to a chord",
        lambda t: t.add.s(1, 2).link(chord([t.add.s(1), t.add.s(2)], t.note())),
        3,
        notes=[[[4, 5]]],
    ),
    Case("link when it is sent", lambda t: t.add.s(1, 2), 3, said={"link": "note"}, notes=[[3]]),
    Case(
        "no link after a failure",
        lambda t: t.boom.s().link(t.note()).on_error(t.error()),
        error=(ValueError, "boom"),
        notes=[["ValueError", "boom", "ValueError: boom"]],
    ),
    Case(
        "no errback after a success",
        lambda t: t.add.s(1, 2).on_error(t.error()).link(t.note()),
        3,
        notes=[[3]],
    ),
    Case(
        "an errback may take the id only",
        lambda t: t.boom.s().on_error(t.error_id()),
        error=(ValueError, "boom"),
        notes=[["id", 36]],
    ),
    Case(
        "an immutable errback gets nothing",
        lambda t: t.boom.s().on_error(t.note_only("x")),
        error=(ValueError, "boom"),
        notes=[["x"]],
    ),
    Case(
        "an errback may be a chain",
        lambda t: t.boom.s().on_error(t.note_only(1) | t.note(2)),
        error=(ValueError, "boom"),
        notes=[[1], [1, 2]],
    ),
    Case(
        "two errbacks",
        lambda t: t.boom.s().on_error(t.error_id(), t.error()),
        error=(ValueError, "boom"),
        notes=[["id", 36], ["ValueError", "boom", "ValueError: boom"]],
    ),
    Case(
        "errback when it is sent",
        lambda t: t.boom.s(),
        said={"link_error": "error_id"},
        error=(ValueError, "boom"),
        notes=[["id", 36]],
    ),
]

CHAINS = [
    Case("each step gets the value before", lambda t: t.add.s(1, 2) | t.add.s(3) | t.sub.s(1), 5),
    Case("chain(...)", lambda t: chain(t.add.s(4, 4), t.sub.s(8), t.add.s(10)), 10),
    Case("chain of an iterable", lambda t: chain(t.add.s(n) for n in range(4)), 16, args=[10]),
    Case("a chain of one", lambda t: chain(t.add.s(1, 2)), 3),
    Case("arguments go to the first step", lambda t: t.sub.s(2) | t.sub.s(3), 5, args=[10]),
    Case(
        "a chain in a chain",
        lambda t: chain(t.add.s(1, 2), chain(t.add.s(3), t.add.s(4)), t.add.s(5)),
        15,
    ),
    Case(
        "an immutable step takes nothing", lambda t: t.add.s(1, 2) | t.add.si(5, 5) | t.add.s(1), 11
    ),
    Case("a chain through JSON", lambda t: _json(t, t.add.s(1, 2) | t.add.s(3)), 6),
    Case("an async step", lambda t: t.add.s(1, 2) | t.aadd.s(3) | t.add.s(4), 10),
    Case("a step that is retried", lambda t: t.add.s(1, 2) | t.flaky.s() | t.same.s(), [3, 3]),
    Case("a chain of 30", lambda t: chain(t.add.s(1, 1), *[t.add.s(1) for _ in range(29)]), 31),
    Case(
        "a step fails: what follows it fails",
        lambda t: t.add.s(1, 2) | t.boom.s() | t.add.s(1) | t.add.s(2),
        error=(WorkflowFailed, "task 'w.boom'"),
    ),
    Case("the last step fails", lambda t: t.add.s(1, 2) | t.boom.s(), error=(ValueError, "boom")),
    Case(
        "errback of a chain: once, for the step that fails",
        lambda t: chain(t.add.s(1, 2), t.boom.s(), t.boom.s()).on_error(t.error()),
        error=(WorkflowFailed, "boom"),
        notes=[["ValueError", "boom", "ValueError: boom"]],
    ),
    Case(
        "options of a chain are those of its steps",
        lambda t: _set(t.add.s(1, 2) | t.about.s(), priority=6),
        look=lambda v: v["priority"] == 6,
    ),
    Case(
        "a step's own option wins",
        lambda t: _set(t.add.s(1, 2) | t.about.s().set(priority=2), priority=6),
        look=lambda v: v["priority"] == 2,
    ),
    Case(
        "countdown of a chain is that of its first step",
        lambda t: _set(t.add.s(1, 2) | t.about.s(), countdown=0.1),
        look=lambda v: not v["delayed"],
    ),
    Case(
        "a step with a countdown",
        lambda t: t.add.s(1, 2) | t.about.s().set(countdown=0.1),
        look=lambda v: v["delayed"],
    ),
    Case(
        "expires of a chain",
        lambda t: _set(t.add.s(1, 2) | t.about.s(), expires=60),
        look=lambda v: v["expires"],
    ),
    Case(
        "a step without an outcome: what follows is revoked",
        lambda t: t.ignored.s() | t.add.s(1),
        error=(TaskRevoked, "without an outcome"),
    ),
    Case(
        "a step that has expired: what follows fails",
        lambda t: t.add.s(1, 2) | t.add.s(1).set(expires=1e-9) | t.add.s(2),
        error=(WorkflowFailed, "expired"),
    ),
]

GROUPS = [
    Case("a group", lambda t: group(t.add.s(n, n) for n in range(4)), [0, 2, 4, 6]),
    Case("arguments go to each member", lambda t: group(t.sub.s(1), t.sub.s(2)), [9, 8], args=[10]),
    Case(
        "an immutable member takes none",
        lambda t: group(t.sub.s(1), t.add.si(1, 1)),
        [9, 2],
        args=[10],
    ),
    Case("an empty group", lambda t: t.app.signature(group()), []),
    Case(
        "a group in a group",
        lambda t: group(t.add.s(1, 1), group(t.add.s(2, 2), t.add.s(3, 3))),
        [2, 4, 6],
    ),
    Case(
        "chains in a group",
        lambda t: group(t.add.s(1, 1) | t.add.s(5), t.add.s(2, 2) | t.add.s(5)),
        [7, 9],
    ),
    Case(
        "a member that ends as a group has a list",
        lambda t: group(t.add.s(1, 1), t.add.s(1, 1) | group(t.add.s(1), t.add.s(2))),
        [2, [3, 4]],
    ),
    Case("a group through JSON", lambda t: _json(t, group(t.add.s(1, 1), t.add.s(2, 2))), [2, 4]),
    Case("a member fails", lambda t: group(t.add.s(1, 1), t.boom.s()), error=(ValueError, "boom")),
    Case(
        "errback of a group: for each that fails",
        lambda t: group(t.boom.s(), t.note_only(1), t.boom.s()).on_error(t.error_id()),
        error=(ValueError, "boom"),
        notes=[[1], ["id", 36], ["id", 36]],
    ),
    Case(
        "options of a group",
        lambda t: group(t.about.s(), t.about.s()).set(priority=3),
        look=lambda v: [m["priority"] for m in v] == [3, 3],
    ),
    Case(
        "skew",
        lambda t: group(t.about.s(), t.about.s()).skew(start=0, step=0.1),
        look=lambda v: [m["delayed"] for m in v] == [False, True],
    ),
    Case("map", lambda t: t.xsum.map([[1, 2], [3, 4]]), [3, 7]),
    Case("starmap", lambda t: t.add.starmap([(1, 2), (3, 4)]), [3, 7]),
    Case("starmap of an async task", lambda t: t.aadd.starmap([(1, 2), (3, 4)]), [3, 7]),
    Case("map in a chain", lambda t: t.xsum.map([[1, 2], [3, 4]]) | t.xsum.s(), 10),
    Case("chunks", lambda t: t.add.chunks([(n, n) for n in range(5)], 2), [[0, 2], [4, 6], [8]]),
    Case(
        "chunks in a chain",
        lambda t: t.add.chunks([(1, 1), (2, 2)], 1).group() | t.same.s(),
        [[2], [4]],
    ),
]

CHORDS = [
    Case("chord", lambda t: chord([t.add.s(n, n) for n in range(5)], t.xsum.s()), 20),
    Case("group | step", lambda t: group(t.add.s(1, 1), t.add.s(2, 2)) | t.xsum.s(), 6),
    Case(
        "values in the header's order",
        lambda t: chord([t.same.s(1).set(countdown=0.1), t.same.s(2)], t.same.s()),
        [1, 2],
    ),
    Case("a header of one", lambda t: chord([t.add.s(1, 1)], t.same.s()), [2]),
    Case("a header that is one signature", lambda t: chord(t.add.s(1, 1), t.same.s()), [2]),
    Case("an empty header", lambda t: chord([], t.same.s()), []),
    Case(
        "arguments go to each member",
        lambda t: chord([t.sub.s(1), t.sub.s(2)], t.xsum.s()),
        17,
        args=[10],
    ),
    Case("an immutable body", lambda t: chord([t.note_only(1)], t.add.si(2, 2)), 4, notes=[[1]]),
    Case(
        "a body with arguments",
        lambda t: chord([t.same.s(1), t.same.s(2)], t.kw.s(5)),
        [[1, 2], 5, 0],
    ),
    Case(
        "a body that is a chain",
        lambda t: chord([t.same.s(1), t.same.s(2)], t.xsum.s() | t.add.s(10)),
        13,
    ),
    Case("chord | step", lambda t: chord([t.same.s(1), t.same.s(2)], t.xsum.s()) | t.add.s(10), 13),
    Case(
        "a body that is a group",
        lambda t: chord([t.same.s(1), t.same.s(2)], group(t.xsum.s(), t.same.s())),
        [3, [1, 2]],
    ),
    Case(
        "a body that is a chord",
        lambda t: chord([t.same.s(1), t.same.s(2)], chord([t.xsum.s(), t.xsum.s()], t.same.s())),
        [3, 3],
    ),
    Case(
        "a member that is a chain",
        lambda t: chord([t.add.s(1, 1) | t.add.s(5), t.same.s(3)], t.same.s()),
        [7, 3],
    ),
    Case(
        "a member that is a group",
        lambda t: chord([group(t.same.s(1), t.same.s(2)), t.same.s(3)], t.same.s()),
        [1, 2, 3],
    ),
    Case(
        "a member that ends as a group",
        lambda t: chord([t.same.s(1) | group(t.add.s(1), t.add.s(2)), t.same.s(3)], t.same.s()),
        [[2, 3], 3],
    ),
    Case(
        "a chord in a header",
        lambda t: chord([chord([t.same.s(1), t.same.s(2)], t.xsum.s()), t.same.s(4)], t.same.s()),
        [3, 4],
    ),
    Case(
        "a chord in a header in a header",
        lambda t: chord(
            [chord([chord([t.same.s(1)], t.xsum.s()), t.same.s(2)], t.xsum.s()), t.same.s(4)],
            t.same.s(),
        ),
        [3, 4],
    ),
    Case(
        "a chord through JSON", lambda t: _json(t, chord([t.same.s(1), t.same.s(2)], t.xsum.s())), 3
    ),
    Case(
        "chain, group, chain",
        lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)) | t.xsum.s() | t.add.s(1),
        8,
    ),
    Case(
        "group | group",
        lambda t: group(t.same.s(1), t.same.s(2)) | group(t.xsum.s(), t.same.s()),
        [3, [1, 2]],
    ),
    Case(
        "a chain that ends as a group",
        lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)),
        [3, 4],
    ),
    Case(
        "two groups in a chain",
        lambda t: chain(
            t.same.s(1),
            group(t.add.s(1), t.add.s(2)),
            t.xsum.s(),
            group(t.add.s(1), t.add.s(2)),
            t.xsum.s(),
        ),
        13,
    ),
    Case(
        "a group of one in a chain gives a list",
        lambda t: chain(t.same.s(1), group(t.add.s(1)), t.same.s()),
        [2],
    ),
    Case(
        "an empty group in a chain is left out",
        lambda t: chain(t.same.s(1), group(), t.add.s(1)),
        2,
    ),
    Case(
        "a member that is retried",
        lambda t: chord([t.flaky.s(7), t.same.s(1)], t.same.s()),
        [[7, 3], 1],
    ),
    Case(
        "an async member and an async body",
        lambda t: group(t.aadd.s(1, 1)) | t.xsum.s() | t.aadd.s(1),
        3,
    ),
    Case(
        "a member fails: so does the body",
        lambda t: chord([t.same.s(1), t.boom.s()], t.same.s()),
        error=(ChordError, "boom"),
    ),
    Case(
        "a step of a member fails",
        lambda t: chord([t.same.s(1), t.boom.s() | t.same.s()], t.same.s()),
        error=(ChordError, "boom"),
    ),
    Case(
        "what follows the body fails, too",
        lambda t: chord([t.boom.s()], t.same.s()) | t.same.s() | t.same.s(),
        error=(ChordError, "boom"),
    ),
    Case(
        "siblings of what fails go on",
        lambda t: chord([t.boom.s(), t.note_only(1) | t.note(2)], t.same.s()),
        error=(ChordError, "boom"),
        notes=[[1], [1, 2]],
    ),
    Case(
        "errback of a body: once",
        lambda t: chord([t.boom.s(), t.boom.s(), t.boom.s()], t.same.s()).on_error(t.error_id()),
        error=(ChordError, "boom"),
        notes=[["id", 36]],
    ),
    Case(
        "an inner chord fails: so does the outer",
        lambda t: chord([chord([t.boom.s()], t.xsum.s()), t.same.s(4)], t.same.s()),
        error=(ChordError, "chord"),
    ),
    Case(
        "a chord within a chain fails",
        lambda t: chain(t.same.s(1), group(t.boom.s(), t.same.s()), t.same.s(), t.same.s()),
        error=(ChordError, "boom"),
    ),
    Case(
        "a body fails",
        lambda t: chord([t.same.s(1)], t.boom.s()) | t.same.s(),
        error=(WorkflowFailed, "boom"),
    ),
    Case(
        "chord of 40",
        lambda t: chord([t.same.s(n) for n in range(40)], t.same.s()),
        list(range(40)),
    ),
]

REPLACED = [
    Case("replaced by a task", lambda t: t.replaced.s(1, "task"), 2),
    Case("replaced by a chain", lambda t: t.replaced.s(1, "chain"), 12),
    Case("replaced by a group", lambda t: t.replaced.s(1, "group"), [2, 2]),
    Case("replaced by a chord", lambda t: t.replaced.s(1, "chord"), 4),
    Case("replaced twice", lambda t: t.replaced.s(1, "again"), 3),
    Case(
        "the chain goes on after it",
        lambda t: t.add.s(1, 0) | t.replaced.s("chain") | t.add.s(100),
        112,
    ),
    Case("and gets the list of a group", lambda t: t.replaced.s(1, "group") | t.xsum.s(), 4),
    Case(
        "its link gets the value",
        lambda t: t.replaced.s(1, "chain").link(t.note()),
        12,
        notes=[[12]],
    ),
    Case(
        "its errback, what fails in its place",
        lambda t: t.replaced.s(1, "boom").on_error(t.error_id()),
        error=(ValueError, "boom"),
        notes=[["id", 36]],
    ),
    Case(
        "what follows fails with it",
        lambda t: t.replaced.s(1, "boom") | t.same.s(),
        error=(WorkflowFailed, "boom"),
    ),
    Case("a member of a group", lambda t: group(t.replaced.s(1, "chain"), t.same.s(1)), [12, 1]),
    Case(
        "a member of a chord",
        lambda t: chord([t.replaced.s(1, "chain"), t.same.s(1)], t.same.s()),
        [12, 1],
    ),
    Case(
        "a member of a chord, by a group",
        lambda t: chord([t.replaced.s(1, "group"), t.same.s(1)], t.same.s()),
        [[2, 2], 1],
    ),
    Case(
        "the body of a chord", lambda t: chord([t.same.s(1)], t.xsum.s()) | t.replaced.s("task"), 2
    ),
    Case(
        "added to a chord",
        lambda t: chord([t.adds.s(1, 2), t.same.s(2)], t.same.s()),
        look=lambda v: v[:2] == [1, 2] and sorted(v[2:]) == [100, 101],
    ),
    Case("added to no chord", lambda t: t.adds.s(1, 1), error=(Exception, "member of a chord")),
]

#: Signatures that are refused before anything is sent, and a part of the reason.
REFUSED: list[tuple[str, Callable[[Tasks], Any], type[Exception], str]] = [
    (
        "arguments of a step",
        lambda t: (t.add.s(1, 2) | t.add.s(1, 2)).delay(),
        ArgumentsError,
        "w.add",
    ),
    (
        "arguments of the first step",
        lambda t: (t.add.s(1) | t.add.s(1)).delay(),
        ArgumentsError,
        "w.add",
    ),
    (
        "arguments of a body",
        lambda t: chord([t.add.s(1, 1)], t.add.s(1, 1)).delay(),
        ArgumentsError,
        "w.add",
    ),
    ("a chain of nothing", lambda t: chain(), Exception, "no steps"),
    (
        "a body of nothing",
        lambda t: chord([t.add.s(1, 1)], group()).delay(),
        Exception,
        "empty group",
    ),
    (
        "a callback for a group",
        lambda t: group(t.add.s(1, 1)).link(t.same.s()),
        Exception,
        "no one value",
    ),
    ("no signature", lambda t: chain(t.add.s(1, 1), cast(Any, 5)), ArgumentsError, "no signature"),
    (
        "a task instead of its signature",
        lambda t: group(cast(Any, t.add)),
        ArgumentsError,
        "no signature",
    ),
    ("an unknown option", lambda t: t.add.s(1, 1).set(prioritty=1), Exception, "did you mean"),
    (
        "a signature in JSON that is none",
        lambda t: t.app.signature({"args": []}),
        Exception,
        "'task'",
    ),
]

CASES = [*SIGNATURES, *CALLBACKS, *CHAINS, *GROUPS, *CHORDS, *REPLACED]

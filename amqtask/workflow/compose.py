"""The words by which signatures are made and put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, overload

from amqtask.errors import ArgumentsError, ConfigurationError
from amqtask.message.signature import Chain, Chord, Group, Step, chunks, mapped, merge, parse
from amqtask.options import Options
from amqtask.result import AsyncResult
from amqtask.workflow.canvas import (
    AnyCanvas,
    Canvas,
    GroupSignature,
    Signature,
    made_of,
    of_node,
)
from amqtask.workflow.outgoing import plain

if TYPE_CHECKING:
    from amqtask.app import App

P = ParamSpec("P")
R = TypeVar("R")

Member: TypeAlias = Signature[..., R] | GroupSignature[..., R]


class ChordHead:
    """The header of a chord that waits for its body: ``chord(header)(body)``."""

    __slots__ = ("_header",)

    def __init__(self, header: Any) -> None:
        self._header = header

    def __call__(self, body: Signature[..., R], **said: Any) -> AsyncResult[R]:
        """Send the chord with this body."""
        made: Signature[..., R] = chord(self._header, body)
        return made.apply_async(**said)


@overload
def chain(first: Signature[P, R], /) -> Signature[P, R]: ...
@overload
def chain(first: Canvas[P, Any], last: Signature[..., R], /) -> Signature[P, R]: ...
@overload
def chain(
    first: Canvas[P, Any], second: AnyCanvas, last: Signature[..., R], /
) -> Signature[P, R]: ...
@overload
def chain(*steps: AnyCanvas | Iterable[AnyCanvas], **said: Any) -> Any: ...
def chain(*steps: Any, **said: Any) -> Any:
    """Return the signature that runs these one after the other, each with the value before.

    Args:
        steps: Signatures, or one iterable of them.
        said: Options, see `Canvas.set`.

    Raises:
        ConfigurationError: There are none, or one is no signature.
    """
    parts = _parts(steps, "chain")
    if not parts:
        raise ConfigurationError(
            "a chain has no steps", hint="give it one or more signatures: chain(a.s(), b.s())"
        )
    made = made_of(Chain(tuple(part._node for part in parts)), parts)
    return made.set(**said) if said else made


def group(*members: Member[R] | Iterable[Member[R]], **said: Any) -> GroupSignature[..., R]:
    """Return the signature that runs these side by side.

    Args:
        members: Signatures, or one iterable of them. None at all is a group, too.
        said: Options, see `Canvas.set`.
    """
    parts = _parts(members, "group")
    made: GroupSignature[..., R] = made_of(Group(tuple(part._node for part in parts)), parts)
    return made.set(**said) if said else made


@overload
def chord(
    header: AnyCanvas | Iterable[AnyCanvas], body: Signature[..., R], **said: Any
) -> Signature[..., R]: ...
@overload
def chord(
    header: AnyCanvas | Iterable[AnyCanvas], body: GroupSignature[..., R], **said: Any
) -> GroupSignature[..., R]: ...
@overload
def chord(header: AnyCanvas | Iterable[AnyCanvas]) -> ChordHead: ...
def chord(header: Any, body: Any = None, **said: Any) -> Any:
    """Return the signature that runs a header side by side, and a body with the list of its values.

    Args:
        header: Signatures, or a group of them.
        body: Gets the list, in the order of the header. Without one the chord waits for it:
            ``chord(header)(body)``.
        said: Options, see `Canvas.set`.
    """
    if body is None:
        return ChordHead(header)
    parts = _parts((header,), "chord")
    (last,) = _parts((body,), "chord")
    if len(parts) == 1 and isinstance(parts[0]._node, Group):
        head = parts[0]._node
    else:
        head = Group(tuple(part._node for part in parts))
    made = made_of(Chord(head, last._node), [*parts, last])
    return made.set(**said) if said else made


def task_signature(
    app: App,
    task: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    said: Options,
    *,
    immutable: bool,
) -> Any:
    """Return the signature of a task that is known here."""
    return Signature(Step(task, tuple(args), dict(kwargs), plain(said), immutable), app)


def map_signature(step: Signature[..., Any], items: Iterable[Any], *, star: bool) -> Any:
    """Return the signature that calls a task for each item, in one run."""
    assert isinstance(step._node, Step)
    return Signature(mapped(step._node, list(items), star=star), step._app)


def chunk_signature(step: Signature[..., Any], items: Iterable[Any], size: int) -> Any:
    """Return the group of runs that each call a task for ``size`` items.

    Raises:
        ConfigurationError: ``size`` is no number from 1 up.
    """
    if not size >= 1:
        raise ConfigurationError(f"chunks of {size!r} items", hint="accepted: a number from 1 up")
    assert isinstance(step._node, Step)
    return GroupSignature(chunks(step._node, list(items), size), step._app)


def signature(
    varies: Canvas[..., Any] | Mapping[str, Any] | str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    app: App | None = None,
    **said: Any,
) -> Any:
    """Return a signature of what varies: a task's name, the JSON form, or a signature (a copy).

    Args:
        args: Arguments, before those it has.
        app: The app it is sent by; not needed for what is only put into another signature.
        said: Options, see `Canvas.set`.

    Raises:
        MalformedMessage: The JSON form is none.
    """
    if isinstance(varies, Canvas):
        made: Canvas[..., Any] = varies.clone(args, kwargs)
        if made._app is None:
            made._app = app
    else:
        node = Step(varies) if isinstance(varies, str) else parse(varies)
        made = of_node(merge(node, tuple(args), kwargs or {}, {}), app)
    return made.set(**said) if said else made


def _parts(given: Sequence[Any], what: str) -> list[Canvas[..., Any]]:
    if len(given) == 1 and not isinstance(given[0], Canvas) and isinstance(given[0], Iterable):
        given = list(given[0])
    for part in given:
        if not isinstance(part, Canvas):
            raise ArgumentsError(
                f"a {what} was given {part!r}, which is no signature",
                hint="write task.s(...) instead of task(...) or task",
            )
    return list(given)

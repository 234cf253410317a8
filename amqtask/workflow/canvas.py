"""Signatures and the ways to put them together: what users write.

    add.s(2)                  a call that is to be made, with part of its arguments
    add.s(2, 2) | mul.s(3)    a chain: each gets the value of the one before
    group(a, b)               side by side
    chord([a, b], c)          c gets the list of what a and b return; group(a, b) | c is the same

A signature can be changed until it is sent; sending works on a copy, so the
same one can be sent again, unless `Signature.freeze` has fixed its ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeAlias, TypeVar, overload

from amqtask.errors import ConfigurationError
from amqtask.message.signature import (
    Chain,
    Chord,
    Document,
    Group,
    Node,
    Step,
    as_list,
    dump,
    merge,
    parse,
)
from amqtask.options import CallOptions, options
from amqtask.result import AsyncResult, GroupResult
from amqtask.waiting import no_waiting_in_tasks
from amqtask.workflow.client import asend, freeze_here, handle_of, send
from amqtask.workflow.outgoing import plain
from amqtask.workflow.shape import shown

if TYPE_CHECKING:
    from amqtask.app import App

P = ParamSpec("P")
R = TypeVar("R")
R2 = TypeVar("R2")
H = TypeVar("H", covariant=True)

AnyCanvas: TypeAlias = "Canvas[..., Any]"


class SignatureOptions(CallOptions, total=False):
    """Keywords of `Canvas.set` and of ``apply_async``: a call's options, and what follows.

    Attributes:
        link: Signatures that get the value.
        link_error: Signatures that get (id, exception, traceback) when it fails.
        immutable: True takes no arguments from what comes before.
    """

    link: Any
    link_error: Any
    immutable: bool


class Canvas(Generic[P, H]):
    """What signatures and groups of them have in common; `H` is the kind of their handles.

    Threads: not safe while it is changed; sending is, from any thread.
    """

    __slots__ = ("_app", "_node")

    def __init__(self, node: Node, app: App | None) -> None:
        self._node = node
        self._app = app

    # -- changing it --------------------------------------------------------------

    def set(self, **said: Any) -> Self:
        """Set options; see `SignatureOptions`. Returns the signature itself.

        Those of a chain, a group or a chord hold for every step that does not say
        otherwise; ``countdown`` and ``eta`` for what runs first, ``task_id`` and
        ``link`` for what runs last.

        Raises:
            ConfigurationError: An unknown option, or a value out of range.
        """
        immutable = said.pop("immutable", None)
        self._node = merge(self._node, (), {}, self._said(said))
        if immutable is not None:
            self._node = replace(self._node, immutable=bool(immutable))
        return self

    def link_error(self, *errbacks: AnyCanvas) -> Self:
        """Have signatures called with (id, exception, traceback) when this fails.

        In a chain or a group it is whichever step fails, in a chord the body, which
        fails when a member of the header does. Returns the signature itself.
        """
        return self.set(link_error=list(errbacks))

    on_error = link_error

    def clone(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **said: Any
    ) -> Self:
        """Return a copy, with more arguments before its own, and with other options."""
        copy = type(self)(merge(self._node, tuple(args), kwargs or {}, {}), self._app)
        return copy.set(**said) if said else copy

    def __copy__(self) -> Self:
        return self.clone()

    def __deepcopy__(self, memo: object) -> Self:
        return self.clone()

    # -- sending it ---------------------------------------------------------------

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> H:
        """Send it, with more arguments before its own, and wait until the broker has it.

        Returns:
            The handle of what runs last; its ``parent`` is that of what comes before.

        Raises:
            ArgumentsError: The arguments of a step do not fit its task.
            ConfigurationError: It has no meaning; the text says why.
            PublishError: The broker did not confirm it within ``publish_timeout``.
            PipelineError: The same for one or more of several first messages.

        Delivery: as `amqtask.Task.delay`. What follows a step is sent, and confirmed, before
            the step is acked.
        """
        handle: H = send(self.app, self._merged(args, kwargs, {}))
        return handle

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> H:
        """Send it, and await the broker's confirms; as `delay`."""
        handle: H = await asend(self.app, self._merged(args, kwargs, {}))
        return handle

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **said: Any
    ) -> H:
        """Send it with more arguments and other options; see `delay` and `set`."""
        handle: H = send(self.app, self._merged(args, kwargs, said))
        return handle

    async def aapply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **said: Any
    ) -> H:
        """Send it with more arguments and other options, awaited."""
        handle: H = await asend(self.app, self._merged(args, kwargs, said))
        return handle

    def freeze(self) -> H:
        """Fix the ids of all steps, and return the handle of the last; nothing is sent."""
        self._node = freeze_here(self.app, self._node)
        handle: H = handle_of(self.app, self._node)
        return handle

    @overload
    def __or__(self, other: Signature[..., R2]) -> Signature[P, R2]: ...
    @overload
    def __or__(self, other: GroupSignature[..., R2]) -> GroupSignature[P, R2]: ...
    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Canvas):
            return NotImplemented
        return made_of(Chain((*_chained(self), *_chained(other))), [self, other])

    # -- what it is ---------------------------------------------------------------

    @property
    def app(self) -> App:
        """The app it belongs to.

        Raises:
            ConfigurationError: It belongs to none.
        """
        if self._app is None:
            raise ConfigurationError(
                f"{self!r} belongs to no app", hint="make it by app.signature(...)"
            )
        return self._app

    @property
    def task(self) -> str:
        """Name of the task; of a chain, a group or a chord Celery's name for it."""
        return str(self.as_dict()["task"])

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments that are known so far."""
        return self._node.args if isinstance(self._node, Step) else ()

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments that are known so far."""
        kwargs: Mapping[str, Any] = self.as_dict()["kwargs"]
        return kwargs

    @property
    def options(self) -> Mapping[str, Any]:
        """Options, as plain data."""
        return dict(self._node.options)

    @property
    def immutable(self) -> bool:
        """Whether it takes no arguments from what comes before."""
        return self._node.immutable

    @property
    def id(self) -> str | None:
        """Id of the call, or of the group, where it is fixed."""
        id_: str | None = self._node.options.get("task_id")
        return id_

    def as_dict(self) -> Document:
        """Return it in Celery's JSON form; `amqtask.App.signature` reads it."""
        return dump(self._node)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self.as_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Canvas) and other._node == self._node

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return shown(self._node)

    # -- inside -------------------------------------------------------------------

    def _said(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Return options as plain data, checked."""
        known = dict(said)
        links: dict[str, Any] = {}
        for name in ("link", "link_error"):
            if given := as_list(known.pop(name, None)):
                links[name] = [_document(each) for each in given]
        return {**plain(options(known)), **links}

    def _merged(
        self, args: Sequence[Any], kwargs: Mapping[str, Any] | None, said: Mapping[str, Any]
    ) -> Node:
        node = merge(self._node, tuple(args), kwargs or {}, {})
        return merge(node, (), {}, self._said(said)) if said else node


class Signature(Canvas[P, AsyncResult[R]], Generic[P, R]):
    """A call, or a chain or chord of calls, that is to be made; it ends as one call.

    Made by ``task.s(...)``, ``task.si(...)``, ``app.signature(...)``, `chain`, `chord`
    and ``|``.
    """

    __slots__ = ()

    def link(self, *callbacks: AnyCanvas) -> Self:
        """Have signatures called with the value; returns the signature itself.

        In a chain it is that of the last step, in a chord that of the body.
        """
        return self.set(link=list(callbacks))

    def __invert__(self) -> R:
        no_waiting_in_tasks(None)  # before it is sent
        return self.apply_async().get()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Run a single call here; send a chain or a chord, as Celery does."""
        if not isinstance(self._node, Step):
            return self.delay(*args, **kwargs)
        node = merge(self._node, args, kwargs, {})
        assert isinstance(node, Step)
        function: Any = self.app.tasks[node.task]  # a plain or an async one
        return function(*node.args, **node.kwargs)


class GroupSignature(Canvas[P, GroupResult[R]], Generic[P, R]):
    """A group of calls, or what ends as one: it has one value for each member."""

    __slots__ = ()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> GroupResult[R]:
        """Send it; as `delay`."""
        return self.delay(*args, **kwargs)

    def set(self, **said: Any) -> Self:
        """Set options; see `Canvas.set`.

        Raises:
            ConfigurationError: As there; and a group has no single value to link to.
        """
        if said.get("link"):
            raise ConfigurationError(
                "link on a group: it has no one value that a callback could get",
                hint="group(...) | callback gets the list of all; link a member for its own",
            )
        return super().set(**said)

    def link(self, *callbacks: AnyCanvas) -> Self:
        """Refuse, as there is no one value.

        Raises:
            ConfigurationError: Always.
        """
        return self.set(link=callbacks or True)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Have the members start one after the other: give each a countdown.

        Args:
            start: Seconds of the first.
            stop: Seconds at which it begins anew; None for never.
            step: Seconds between two.
        """
        if isinstance(self._node, Group):
            self._node = replace(self._node, members=_skewed(self._node.members, start, stop, step))
            return self
        raise ConfigurationError(f"{self!r} is no plain group", hint="skew the group itself")

    def group(self) -> Self:
        """Return it itself: what Celery's chunks are asked for."""
        return self

    def __len__(self) -> int:
        return len(self._node.members) if isinstance(self._node, Group) else 0


def of_node(node: Node, app: App | None) -> Any:
    """Return the signature of a node."""
    kind: Any = GroupSignature if _many(node) else Signature
    return kind(node, app)


def made_of(node: Node, parts: Iterable[AnyCanvas]) -> Any:
    """Return the signature of a node; it belongs to the app of the first part that has one."""
    return of_node(node, next((part._app for part in parts if part._app is not None), None))


def _chained(part: AnyCanvas) -> tuple[Node, ...]:
    node = part._node
    return node.steps if isinstance(node, Chain) and not node.options else (node,)


def _many(node: Node) -> bool:
    """Tell whether a signature ends as a group."""
    match node:
        case Group():
            return True
        case Chain():
            steps = node.steps
            return _many(next((s for s in reversed(steps) if s != Group(())), steps[-1]))
        case Chord():
            return _many(node.body)
    return False


def _document(part: Any) -> Document:
    if isinstance(part, Canvas):
        return part.as_dict()
    return dump(parse(part))  # checked, and in its full form


def _skewed(
    members: Sequence[Node], start: float, stop: float | None, step: float
) -> tuple[Node, ...]:
    if step <= 0:
        raise ConfigurationError(f"skew by {step!r} s", hint="accepted: seconds above 0")
    skewed, pause = [], start
    for member in members:
        skewed.append(merge(member, (), {}, {"countdown": pause}))
        pause += step
        if stop is not None and pause > stop:
            pause = start
    return tuple(skewed)


def _unpickled(kind: Callable[..., Any], document: Document) -> Any:
    return kind(parse(document), None)

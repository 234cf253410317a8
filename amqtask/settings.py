"""Settings: one frozen value, read once from all the places a setting can stand in.

A typing error in a setting must not start a worker that does something else,
so an unknown key is an error with a near name, wherever it was written.

Highest first: ``AMQTASK_*`` environment variables, the app's own arguments,
the app's settings object, ``[tool.amqtask]`` of pyproject.toml, the defaults.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, tzinfo
from inspect import isclass, ismodule
from typing import TYPE_CHECKING, Any, Literal

from amqtask.errors import ConfigurationError, UnknownSetting, near

if TYPE_CHECKING:
    from pathlib import Path

ENV_PREFIX = "AMQTASK_"
#: Read by the command line, never a setting.
RESERVED = frozenset({"app", "require"})
#: Environment variables with this start belong to the test suite.
_ENV_TEST = "AMQTASK_TEST_"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_SECRET = re.compile(r"(?i)([?&][^=&]*(?:passw|pwd|secret|token)[^=&]*=)[^&]*")
_URL_START = re.compile(r",\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")


def redact_url(url: str) -> str:
    """Return a URL, or a comma list of them, with ``***`` for every password.

    The last ``@`` ends the password, so one that holds a raw ``@`` or ``/``
    is hidden too, at the price of the host's name where the path has an ``@``.

    Example:
        >>> redact_url("amqps://app:s3cret@mq.example/prod")
        'amqps://app:***@mq.example/prod'
    """
    return ",".join(_redact(part) for part in _URL_START.split(url))


def _redact(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    userinfo, at, host = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if at and colon:
        rest = f"{user}:***@{host}"
    return _SECRET.sub(r"\1***", f"{scheme}{separator}{rest}")


# -- kinds of value -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    # convert raises ValueError for what it does not accept; its second
    # argument is True for text from the environment, where all is text
    accepts: str
    convert: Callable[[Any, bool], Any]


def _need(accepted: object) -> None:
    if not accepted:
        raise ValueError


def _setting(default: Any, kind: _Kind) -> Any:
    return field(default=default, metadata={"kind": kind})


def _optional(kind: _Kind) -> _Kind:
    def convert(value: Any, text: bool) -> Any:
        if value is None or (text and value.strip().lower() in ("", "none")):
            return None
        return kind.convert(value, text)

    return _Kind(f"{kind.accepts}, or none", convert)


def _text(accepts: str = "text that is not empty") -> _Kind:
    def convert(value: Any, text: bool) -> str:
        _need(isinstance(value, str) and value.strip())
        return str(value).strip()

    return _Kind(accepts, convert)


def _whole(least: int, most: int | None = None) -> _Kind:
    span = f"of at least {least}" if most is None else f"from {least} to {most}"

    def convert(value: Any, text: bool) -> int:
        number = int(value) if text else value
        _need(isinstance(number, int) and not isinstance(number, bool))
        _need(number >= least and (most is None or number <= most))
        return int(number)

    return _Kind(f"a whole number {span}", convert)


def _seconds(*, or_zero: bool = False) -> _Kind:
    def convert(value: Any, text: bool) -> float:
        _need(text or (isinstance(value, (int, float)) and not isinstance(value, bool)))
        number = float(value)
        _need(math.isfinite(number) and (number > 0 or (or_zero and number == 0)))
        return number

    return _Kind(f"a number of seconds {'of at least' if or_zero else 'above'} 0", convert)


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes in ``"300MB"``; units are powers of 1,024, as a system's tools count memory.

    Raises:
        ValueError: It is no size, or less than a byte.
    """
    match = _SIZE.fullmatch(text.strip())
    _need(match)
    assert match is not None
    size = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
    _need(size > 0)
    return size


def _bytes() -> _Kind:
    def convert(value: Any, text: bool) -> int:
        if isinstance(value, str):
            return parse_size(value)
        _need(isinstance(value, int) and not isinstance(value, bool) and value > 0)
        return int(value)

    return _Kind("a number of bytes, or a size like 300MB", convert)


def _bounds() -> _Kind:
    def convert(value: Any, text: bool) -> tuple[int, int]:
        found = _listed(value)
        _need(len(found) == 2 and not any(isinstance(each, bool) for each in found))
        least, most = (int(each) if isinstance(each, str) else each for each in found)
        _need(isinstance(least, int) and isinstance(most, int) and 1 <= least <= most)
        return least, most

    return _Kind("two whole numbers, the least and the most, like 1,4", convert)


def _flag() -> _Kind:
    def convert(value: Any, text: bool) -> bool:
        word = value.strip().lower() if text else value
        if word is True or (text and word in _TRUE):
            return True
        if word is False or (text and word in _FALSE):
            return False
        raise ValueError

    return _Kind("true or false (also yes/no, on/off, 1/0 in the environment)", convert)


def _choice(*words: str) -> _Kind:
    def convert(value: Any, text: bool) -> str:
        word = value.strip().lower() if isinstance(value, str) else None
        _need(word in words)
        return str(word)

    return _Kind(f"one of {', '.join(words)}", convert)


def _split(value: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)


def _listed(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return _split(value)
    _need(isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)))
    return tuple(value)


def _names(accepts: str, least: int = 0) -> _Kind:
    def convert(value: Any, text: bool) -> tuple[str, ...]:
        found = _listed(value)
        _need(len(found) >= least and all(isinstance(name, str) and name for name in found))
        return found

    return _Kind(accepts, convert)


def _queues() -> _Kind:
    def convert(value: Any, text: bool) -> tuple[Any, ...]:
        found = _listed(value)
        # floor 0 does not know Queue; what carries a name is taken for one
        _need(all(isinstance(getattr(queue, "name", queue), str) for queue in found))
        return found

    return _Kind("a list of queues or queue names", convert)


def _routes() -> _Kind:
    def convert(value: Any, text: bool) -> tuple[Any, ...]:
        if isinstance(value, str):
            pairs = [rule.partition("=") for rule in _split(value)]
            _need(all(glob.strip() and queue.strip() for glob, _, queue in pairs))
            return tuple((glob.strip(), queue.strip()) for glob, _, queue in pairs)
        if isinstance(value, Mapping) or callable(value):
            return (value,)
        rules = _listed(value)
        # a bare pair looks like two rules
        _need(not any(isinstance(rule, (str, bytes)) for rule in rules))
        return rules

    return _Kind(
        'a list of rules, like [("email.*", "email")] or, as text, email.*=email,report.*=reports',
        convert,
    )


def _table() -> _Kind:
    def convert(value: Any, text: bool) -> Mapping[str, Any]:
        _need(isinstance(value, Mapping) and all(isinstance(key, str) for key in value))
        found: Mapping[str, Any] = value
        return found

    return _Kind('a mapping, like {"nightly": {"task": "app.clean", "schedule": 3600}}', convert)


def _zone() -> _Kind:
    def convert(value: Any, text: bool) -> str:
        _need(isinstance(value, str))
        name = str(value).strip()
        if name != "UTC":
            from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # slow import, rarely needed

            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, OSError) as error:
                raise ValueError from error
        return name

    return _Kind("the name of a time zone, like Europe/Paris", convert)


# -- the settings -------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """What an app, its clients and its workers go by.

    Every field can be given as ``AMQTASK_<NAME>`` in the environment too;
    lists are then written with commas. Fields are checked however the value
    is made, `dataclasses.replace` included.

    Raises:
        ConfigurationError: A value is of the wrong type or out of range.
    """

    #: Broker URLs, tried in turn.
    broker: tuple[str, ...] = _setting(
        ("amqp://guest:guest@127.0.0.1:5672/",), _names("one broker URL or a list of them", least=1)
    )
    #: URL of the result backend; None keeps results off.
    backend: str | None = _setting(None, _optional(_text("a backend URL")))

    #: Queues, or names of queues, that the app knows.
    queues: tuple[Any, ...] = _setting((), _queues())
    #: Name of the queue for calls that nothing routes elsewhere.
    default_queue: str = _setting("default", _text())
    #: Topic exchange that calls are published to.
    exchange: str = _setting("amqtask", _text())
    #: Direct exchange that failed messages go to.
    dead_letter_exchange: str = _setting("amqtask.dead", _text())
    #: Start of the names of all delay exchanges and queues.
    delay_prefix: str = _setting("amqtask.delay", _text())
    #: Type of queues that do not say theirs.
    queue_type: Literal["quorum", "classic"] = _setting("quorum", _choice("quorum", "classic"))
    #: Returns and crashes after which the broker parks a message (quorum queues).
    delivery_limit: int = _setting(20, _whole(0, 2**31 - 1))
    #: ``auto`` makes what is missing, ``passive`` checks it, ``never`` touches nothing.
    declare: Literal["auto", "passive", "never"] = _setting(
        "auto", _choice("auto", "passive", "never")
    )
    #: Rules that send tasks to queues; the first that matches decides.
    routes: tuple[Any, ...] = _setting((), _routes())

    #: Serializer of calls; results are always JSON.
    serializer: str = _setting("json", _text())
    #: Serializers that are read; a message in another one is parked.
    accept_content: tuple[str, ...] = _setting(
        ("json",), _names("one serializer name or a list of them", least=1)
    )
    #: Compression of large bodies; None sends them as they are.
    compression: str | None = _setting(None, _optional(_text("the name of a compression")))
    #: Bytes above which a body is compressed.
    compress_over: int = _setting(1024, _whole(0))
    #: Bytes of the largest body that is sent.
    max_message_size: int = _setting(16 * 1024 * 1024, _whole(1))
    #: Bytes up to which a received body is unpacked.
    max_decoded_size: int = _setting(64 * 1024 * 1024, _whole(1))

    #: Seconds to wait for the broker's confirm.
    publish_timeout: float = _setting(10.0, _seconds())
    #: Seconds that `task.call` waits for the value.
    call_timeout: float = _setting(60.0, _seconds())
    #: Seconds to wait for a connection.
    connect_timeout: float = _setting(10.0, _seconds())
    #: Seconds between heartbeats; 0 switches them off.
    heartbeat: int = _setting(30, _whole(0, 65535))

    #: Fanout exchange that cancelled calls are announced on; its register is named after it.
    cancel_exchange: str = _setting("amqtask.cancel", _text())
    #: Seconds that a cancelled call is remembered, from its eta on if it has one.
    cancel_expires: float = _setting(86400.0, _seconds())
    #: Cancelled calls that are remembered; the oldest is forgotten first.
    cancel_limit: int = _setting(10_000, _whole(1, 30_000))

    #: Topic exchange that requests to what runs go to.
    control_exchange: str = _setting("amqtask.control", _text())
    #: Queue that holds the state of beats; None is ``amqtask.beat.`` and the app's name.
    beat_queue: str | None = _setting(None, _optional(_text("the name of a queue")))
    #: Seconds between a beat's heartbeats; a leader that hangs is followed within three of them.
    beat_heartbeat: int = _setting(1, _whole(1, 65535))

    #: Seconds that results are kept; None keeps them for ever.
    result_expires: float | None = _setting(86400.0, _optional(_seconds()))
    #: Seconds that failures are kept; None keeps them as long as other results.
    result_failure_expires: float | None = _setting(None, _optional(_seconds()))
    #: Seconds that a chord waits for its members, counted from the last one that came.
    join_expires: float = _setting(86400.0, _seconds())
    #: Compression of stored results over ``compress_over``; None stores them as they are.
    result_compression: str | None = _setting(None, _optional(_text("the name of a compression")))
    #: Bytes of the largest result that is stored or sent.
    result_max_size: int = _setting(16 * 1024 * 1024, _whole(1))
    #: True stores the call with its result: name, arguments, worker, retries, queue.
    result_extended: bool = _setting(False, _flag())
    #: True stores arguments whose names look like secrets as they are, not as ``***``.
    result_secrets: bool = _setting(False, _flag())
    #: Start of every key in stores that have keys.
    result_prefix: str | None = _setting(None, _optional(_text()))
    #: Seconds that a result is offered to a backend that does not take it.
    result_retry_for: float = _setting(600.0, _seconds())
    #: After that the message goes to the dead-letter queue, or back to its queue to run again.
    result_fallback: Literal["dead_letter", "redeliver"] = _setting(
        "dead_letter", _choice("dead_letter", "redeliver")
    )
    #: True keeps no results of tasks that do not say otherwise.
    ignore_result: bool = _setting(False, _flag())

    #: Time zone of schedules and of times that come without one.
    timezone: str = _setting("UTC", _zone())
    #: Entries that beats fire, by name, as Celery's setting of this name has them.
    beat_schedule: Mapping[str, Any] | None = _setting(None, _optional(_table()))
    #: Modules a worker imports for their tasks.
    imports: tuple[str, ...] = _setting((), _names("one module name or a list of them"))

    #: Tasks that run at the same time in one worker process.
    concurrency: int = _setting(16, _whole(1))
    #: Processes of one worker.
    processes: int = _setting(1, _whole(1))
    #: What a worker's processes share the memory of: ``amqtask``, the ``app`` too, or ``nothing``.
    preload: Literal["nothing", "amqtask", "app"] = _setting(
        "amqtask", _choice("nothing", "amqtask", "app")
    )
    #: Where tasks run that do not say it: ``auto`` takes threads and the event loop.
    pool: Literal["auto", "process"] = _setting("auto", _choice("auto", "process"))
    #: Tasks that run isolated at the same time in one worker process; None takes the CPUs.
    process_slots: int | None = _setting(None, _optional(_whole(1)))
    #: Seconds of run time after which a task is ended, unless call or task say otherwise.
    time_limit: float | None = _setting(None, _optional(_seconds()))
    #: Seconds of run time after which a task is asked to end, unless call or task say otherwise.
    soft_time_limit: float | None = _setting(None, _optional(_seconds()))
    #: Deaths of its process after which a call is parked.
    crash_limit: int = _setting(3, _whole(1))
    #: Unacked messages a process holds of each queue; None follows the pace.
    prefetch: int | None = _setting(None, _optional(_whole(1, 65535)))
    #: Name of the worker; None makes one from the host.
    worker_name: str | None = _setting(None, _optional(_text()))
    #: Processes between which a worker scales by its backlog, such as 1,4; None keeps `processes`.
    autoscale: tuple[int, int] | None = _setting(None, _optional(_bounds()))
    #: Seconds a process must have been superfluous before autoscaling ends it.
    autoscale_idle: float = _setting(60.0, _seconds())
    #: Tasks after which a process is replaced; None never does.
    max_tasks_per_child: int | None = _setting(None, _optional(_whole(1)))
    #: Bytes of memory above which a process is replaced, such as 300MB; None never does.
    max_memory_per_child: int | None = _setting(None, _optional(_bytes()))

    #: Seconds that running tasks have to end at shutdown; None waits for as long as they take.
    shutdown_timeout: float | None = _setting(None, _optional(_seconds(or_zero=True)))
    #: Seconds that tasks have to clean up once a shutdown cancels them.
    cleanup_timeout: float = _setting(5.0, _seconds())
    #: Seconds without consuming after which a worker exits with 69; 0 never does.
    deaf_timeout: float = _setting(300.0, _seconds(or_zero=True))
    #: Port of ``/live`` and ``/ready`` over HTTP; None opens none, 0 takes any that is free.
    health_port: int | None = _setting(None, _optional(_whole(0, 65535)))
    #: Address that ``/live`` and ``/ready`` listen on.
    health_host: str = _setting("0.0.0.0", _text())  # noqa: S104 - probes come from outside

    #: Least severity that is logged.
    loglevel: str = _setting("info", _choice("debug", "info", "warning", "error", "critical"))

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            object.__setattr__(self, name, _convert(name, kind, value, False, "Settings"))

    def __repr__(self) -> str:
        # what differs from the defaults, so that a log line stays readable
        given = ", ".join(
            f"{name}={_show(getattr(self, name))}"
            for name, default in _DEFAULTS.items()
            if getattr(self, name) != default
        )
        return f"Settings({given})"

    @property
    def zone(self) -> tzinfo:
        """The zone that `timezone` names."""
        if self.timezone == "UTC":
            return UTC
        from zoneinfo import ZoneInfo  # slow import, rarely needed

        return ZoneInfo(self.timezone)

    @classmethod
    def load(
        cls,
        *,
        values: Mapping[str, Any] | None = None,
        source: object | None = None,
        environ: Mapping[str, str] | None = None,
        pyproject: Path | None = None,
    ) -> Settings:
        """Read the settings from every place they may stand in.

        Args:
            values: The app's own arguments.
            source: A mapping, or a module or object whose attributes are
                settings. Of an object, what starts with ``_`` or holds a
                capital letter, modules, classes and functions are left alone.
            environ: None takes the environment of the process.
            pyproject: The file whose ``[tool.amqtask]`` is read; None reads none.

        Raises:
            UnknownSetting: A key that no setting has; names where it stands.
            ConfigurationError: A value that is not accepted, or a file that
                cannot be read.
        """
        merged: dict[str, Any] = {}
        if pyproject is not None:
            merged |= _from_pyproject(pyproject)
        if source is not None:
            merged |= _from_source(source)
        merged |= _checked(values or {}, "the app's arguments")
        merged |= _from_environ(os.environ if environ is None else environ)
        return cls(**merged)


_KINDS: dict[str, _Kind] = {item.name: item.metadata["kind"] for item in fields(Settings)}
_DEFAULTS: dict[str, Any] = {item.name: item.default for item in fields(Settings)}


def _show(value: Any) -> str:
    if isinstance(value, str):
        return repr(redact_url(value))
    if isinstance(value, (list, tuple)):
        inside = ", ".join(_show(item) for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_show(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _convert(name: str, kind: _Kind, value: Any, text: bool, where: str) -> Any:
    try:
        return kind.convert(value, text)
    except (ValueError, OverflowError):
        # the cause would show the raw value, which may hold a password
        raise ConfigurationError(
            f"setting {name!r} in {where} is {_show(value)}", hint=f"accepted: {kind.accepts}"
        ) from None


def _checked(found: Mapping[str, Any], where: str) -> dict[str, Any]:
    for name in found:
        if name not in _KINDS:
            raise _unknown(name, where, list(_KINDS))
    return {
        name: _convert(name, _KINDS[name], value, False, where) for name, value in found.items()
    }


def _unknown(name: object, where: str, known: list[str]) -> UnknownSetting:
    return UnknownSetting(f"unknown setting {name!r} in {where}{near(str(name), known)}")


def _from_pyproject(path: Path) -> dict[str, Any]:
    import tomllib  # only needed where there is a file

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {str(path)!r}: {error.strerror}",
            hint="check the path, or leave it out",
        ) from error
    except ValueError as error:  # broken TOML or broken UTF-8
        raise ConfigurationError(
            f"cannot read {str(path)!r}: {error}", hint="write it as valid TOML in UTF-8"
        ) from error
    tool = document.get("tool", {})
    table = tool.get("amqtask", {}) if isinstance(tool, dict) else {}
    where = f"[tool.amqtask] of {path.name}"
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where} is {table!r}", hint="write it as a table")
    return _checked({key: value for key, value in table.items() if key not in RESERVED}, where)


def _from_source(source: object) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return _checked(source, "the settings mapping")
    if isinstance(source, (str, bytes, int, float)):
        raise ConfigurationError(
            f"settings cannot be read from {_show(source)}",
            hint="give a mapping, a module or an object with settings as attributes",
        )
    if ismodule(source):
        where = f"module {source.__name__!r}"
    else:
        where = f"object {(source if isclass(source) else type(source)).__qualname__!r}"
    found: dict[str, Any] = {}
    for name in dir(source):
        if name.startswith("_") or name != name.lower():
            continue
        value = getattr(source, name)
        if name in _KINDS or not _furniture(value):
            found[name] = value
    return _checked(found, where)


def _furniture(value: object) -> bool:
    # what a module or class holds besides its settings, "from __future__
    # import annotations" included
    return callable(value) or ismodule(value) or type(value).__module__ == "__future__"


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or variable.startswith(_ENV_TEST):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name in RESERVED:
            continue
        if name not in _KINDS or variable != variable.upper():
            known = [ENV_PREFIX + key.upper() for key in _KINDS]
            raise _unknown(variable, "the environment", known)
        found[name] = _convert(name, _KINDS[name], value, True, f"the environment ({variable})")
    return found

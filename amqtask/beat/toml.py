"""Entries as TOML: what ``amqtask schedule export`` writes and ``import`` reads.

    [entries.nightly]
    task = "shop.tasks.clean"
    schedule = { cron = "0 3 * * *", tz = "Europe/Paris" }
    args = [30]

Arguments are written as JSON would have them, so that datetimes, decimals and
the like come back as what they were. TOML has no null: arguments that hold one
are written as JSON text, ``args_json = '[null]'``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import Any

from amqtask.errors import ConfigurationError, EncodeError, MessageError
from amqtask.message import jsoncodec
from amqtask.policy.entry import Entry

#: The fields that hold a user's data.
_DATA = ("args", "kwargs", "options")
_JSON = "_json"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class _NotToml(Exception):
    """A value that TOML has no way to write."""


def dump_entries(entries: Iterable[Entry]) -> str:
    """Return entries as TOML, in the order given.

    Raises:
        ConfigurationError: An entry has arguments that JSON does not hold.
    """
    return "\n".join(_table(entry) for entry in entries)


def load_entries(text: str, *, tz: str, where: str = "the TOML text") -> list[Entry]:
    """Read entries from TOML; they are dynamic ones.

    Args:
        tz: Time zone of cron expressions that have none.
        where: What the text is, for errors.

    Raises:
        ConfigurationError: It is no TOML, or an entry is wrong; the text names it.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where} is not valid TOML: {error}") from error
    tables = document.pop("entries", {})
    if document or not isinstance(tables, dict):
        raise ConfigurationError(
            f"{where} has {next(iter(document), 'entries')!r}, which is no table of entries",
            hint="write each entry as a table [entries.NAME]",
        )
    return [_entry(name, table, tz) for name, table in tables.items()]


# -- writing --------------------------------------------------------------------------


def _table(entry: Entry) -> str:
    lines = [f"[entries.{_key(entry.name)}]"]
    for name, value in entry.to_plain().items():
        lines.append(_line(entry, name, value))
    return "\n".join(lines) + "\n"


def _line(entry: Entry, name: str, value: Any) -> str:
    if name not in _DATA:
        return f"{name} = {_value(value)}"
    try:
        data = jsoncodec.dumps(value)
    except EncodeError as error:
        raise ConfigurationError(
            f"{name} of entry {entry.name!r} cannot be written: {error}", hint=error.hint
        ) from error
    try:
        return f"{name} = {_value(json.loads(data))}"
    except _NotToml:
        # ASCII, so that text which is no Unicode passes too
        return f"{name}{_JSON} = {_value(json.dumps(json.loads(data)))}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    raise _NotToml(value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _NotToml(text) from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


# -- reading --------------------------------------------------------------------------


def _entry(name: str, table: Any, tz: str) -> Entry:
    if not isinstance(table, dict):
        raise ConfigurationError(
            f"entry {name!r} is {table!r}", hint="write each entry as a table [entries.NAME]"
        )
    found: dict[str, Any] = {}
    for key, value in table.items():
        field = key.removesuffix(_JSON)
        if field not in _DATA:
            found[key] = value
        elif field in found or (field != key and field in table):
            raise ConfigurationError(f"entry {name!r} has both {field} and {field}{_JSON}")
        else:
            found[field] = _revived(name, key, value)
    return Entry.from_plain(name, found, tz=tz)


def _revived(name: str, key: str, value: Any) -> Any:
    try:
        text = value if key.endswith(_JSON) else json.dumps(value, default=_marked)
        return jsoncodec.loads(text.encode("utf-8"))
    except (MessageError, AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{key} of entry {name!r} cannot be read: {error}") from error


def _marked(value: Any) -> Any:
    """Mark what TOML has a type for and JSON has none, as the JSON codec does."""
    for kind in (datetime, date, time):  # a datetime is a date too
        if isinstance(value, kind):
            return {"__type__": kind.__name__, "__value__": value.isoformat()}
    raise TypeError(f"{value!r} is no plain data")

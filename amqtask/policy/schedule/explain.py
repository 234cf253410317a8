"""What is wrong with a cron expression, in words: which field, which part, what it may be."""

from __future__ import annotations

from dataclasses import dataclass

from amqtask.errors import ConfigurationError, near

#: What stands for an expression.
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MOST_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()

    @property
    def accepts(self) -> str:
        words = f" or {self.words[0]} to {self.words[-1]}" if self.words else ""
        return f"{self.least} to {self.most}{words}"


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)


def explain(said: str, expression: str) -> ConfigurationError:
    """Return the error for an expression that was refused.

    Args:
        said: What the caller wrote.
        expression: The same with aliases replaced.
    """
    if said.startswith("@"):
        return _alias(said)
    parts = expression.split()
    if len(parts) not in (5, 6):
        count = f"{len(parts)} field{'' if len(parts) == 1 else 's'}"
        return ConfigurationError(
            f"cron expression {said!r} has {count}, not 5 or 6",
            hint="the fields are minute, hour, day of month, month and day of week; six have "
            "seconds first",
        )
    for field, part in zip(_FIELDS[-len(parts) :], parts, strict=True):
        for term in part.split(","):
            wrong = _wrong(field, term)
            if wrong is not None:
                where = f" in {part!r}" if part != term else ""
                return ConfigurationError(
                    f"cron expression {said!r}: {field.name} {term!r}{where} {wrong}",
                    hint=f"it takes {field.accepts}, a range as in {_range(field)}, a "
                    "step as in */2, or several of them with commas",
                )
    if (impossible := _impossible(parts)) is not None:
        return ConfigurationError(f"cron expression {said!r} {impossible}")
    return ConfigurationError(f"cron expression {said!r} is not one that can be read")


def _alias(said: str) -> ConfigurationError:
    if said.lower() == "@reboot":
        return ConfigurationError(
            "cron expression '@reboot' has no instant: beats come and go, none of them is a boot",
            hint="send the call where your program starts",
        )
    return ConfigurationError(
        f"cron expression {said!r} is no alias{near(said.lower(), list(ALIASES))}",
        hint=f"there are {', '.join(ALIASES)}",
    )


def _range(field: _Field) -> str:
    if field.words:
        return f"{field.words[1]}-{field.words[5]}"
    return f"{field.least + 1}-{field.least + 5}"


def _wrong(field: _Field, term: str) -> str | None:
    """Return what is wrong with one term, such as ``1-5/2``; None when nothing is."""
    if not term:
        return "is empty"
    base, slash, step = term.partition("/")
    if slash and (not step.isascii() or not step.isdigit() or int(step) == 0):
        return f"has the step {step!r}, not a whole number above 0"
    if base == "*" or _special(field, base.lower()):
        return None
    if field.name == "day of week" and "#" in base:
        day, _, nth = base.partition("#")
        if slash:
            return "has a step after a single day"
        if nth not in ("1", "2", "3", "4", "5"):
            return f"asks for day number {nth!r} of the month, not 1 to 5"
        return _wrong_value(field, day)
    first, dash, last = base.partition("-")
    wrong = _wrong_value(field, first) or (_wrong_value(field, last) if dash else None)
    if wrong is None and dash and _value(field, last) < _value(field, first):
        return f"runs backwards: write {first}-{_end(field)},{_start(field)}-{last}"
    return wrong


def _special(field: _Field, base: str) -> bool:
    """Tell whether it is a form with L: the last day, the last weekday, the last Friday."""
    if field.name == "day of month":
        return base in ("l", "lw")
    if field.name == "day of week" and base.endswith("l"):
        return base[:-1].isdigit() and int(base[:-1]) <= field.most
    return False


def _wrong_value(field: _Field, value: str) -> str | None:
    if value.isascii() and value.isdigit():
        inside = field.least <= int(value) <= field.most
        return None if inside else f"is not from {field.least} to {field.most}"
    if value.lower() in field.words:
        return None
    if not value:
        return "misses a value"
    if value.startswith("*"):
        return "has something beside the *"
    return f"is not {field.accepts}{near(value.lower(), field.words)}"


def _value(field: _Field, value: str) -> int:
    if value.isdigit():
        return int(value)
    return field.words.index(value.lower()) + field.least


def _start(field: _Field) -> str:
    return field.words[0] if field.words else str(field.least)


def _end(field: _Field) -> str:
    return field.words[-1] if field.words else str(field.most)


def _impossible(parts: list[str]) -> str | None:
    """Return why no month has the day that is asked for; None when one has."""
    days, months = parts[-3], parts[-2]
    if not days.isdigit():
        return "asks for days that none of its months has"
    month = _FIELDS[4]
    named = [term for term in months.split(",") if term.isdigit() or term.lower() in month.words]
    longest = max((_MOST_DAYS[_value(month, each) - 1] for each in named), default=31)
    if named and int(days) > longest:
        return f"asks for day {days} of a month with at most {longest}"
    return "asks for days that none of its months has"

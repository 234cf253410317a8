"""The pages keep up with the code: what README and reference repeat is compared with it."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from amqtask import errors, settings
from amqtask.settings import Settings
from amqtask.testing import servers

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"


def page(name: str) -> str:
    return (ROOT / name).read_text()


def settings_table() -> str:
    """Return the table of all settings, made of the `#:` comments and kinds in settings.py."""
    source = inspect.getsource(settings)
    commented = re.findall(r"#: (.+)\n    (\w+): .*_setting\(", source)
    said = {name: meaning.rstrip(".").replace("``", "`") for meaning, name in commented}
    rows = ["| setting | meaning | accepted | default | environment |", "|---|---|---|---|---|"]
    for item in fields(Settings):
        variable = f"AMQTASK_{item.name.upper()}"
        cells = (
            f"`{item.name}`",
            said[item.name],
            item.metadata["kind"].accepts,
            _default(item.default),
            f"`{variable}`",
        )
        rows.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _default(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(value) if isinstance(value, tuple) else value}`"


def test_every_setting_is_in_the_reference() -> None:
    """Name, meaning, accepted values, default and variable of each setting, as the code has them."""
    assert settings_table() in page("docs/reference/configuration.md")


def test_every_test_variable_is_in_the_reference() -> None:
    """The variables that tests find their servers by are documented."""
    text = page("docs/reference/configuration.md")
    for name in (
        *("rabbitmq", "rabbitmq4", "redis", "memcached", "postgresql", "mysql"),
        *("mongodb", "valkey", "cassandra", "couchbase"),
    ):
        variable = re.findall(r"set (\w+),", servers.missing(name))[0]
        assert f"`{variable}`" in text


def test_every_error_is_in_the_guide() -> None:
    """Whoever meets an error finds what it means and what to do."""
    text = page("docs/guide/errors.md")
    classes = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value)
        and issubclass(value, BaseException)
        and value.__module__ == errors.__name__
    ]
    assert [name for name in classes if f"`{name}`" not in text] == []


def test_every_reason_is_in_the_reference() -> None:
    """Each word that `amqtask-reason` can hold is explained."""
    words = {
        value.reason
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.MessageError)
    }
    for module in (ROOT / "amqtask" / "worker").glob("*.py"):
        words |= set(
            re.findall(r'Failed\([^()]*(?:\([^()]*\))?[^()]*, "(\w+)"', module.read_text())
        )
        words |= set(re.findall(r'"(result_\w+)"', module.read_text()))
    words.discard("abandoned")  # given back before it could be parked
    text = page("docs/reference/wire.md")
    assert {"failed", "rejected", "expired", "result_too_large"} <= words
    assert [word for word in sorted(words) if f"| `{word}` |" not in text] == []


def test_readme_shows_the_quickstart() -> None:
    """README repeats the quickstart example, which another test runs, to the letter."""
    text = page("README.md")
    for name in ("tasks.py", "send.py"):
        code = (QUICKSTART / name).read_text()
        assert f"```python\n{code}```" in text
    for name in ("worker.txt", "send.txt"):
        for line in (QUICKSTART / name).read_text().splitlines():
            if "stopp" not in line and "child.ended" not in line:  # README ends before the stop
                assert f"\n{line}\n" in text


@pytest.mark.parametrize(
    "folder", sorted(path.parent.name for path in ROOT.glob("examples/*/*.txt"))
)
def test_every_example_is_in_the_guide(folder: str) -> None:
    """An example that no page includes is one that nobody finds."""
    pages = "".join(path.read_text() for path in ROOT.glob("docs/**/*.md"))
    assert f"examples/{folder}/" in pages

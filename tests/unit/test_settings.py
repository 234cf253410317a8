"""Settings: where they come from, what wins, and what is refused."""

from __future__ import annotations

import pickle
import types
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import pytest

from amqtask.errors import ConfigurationError, UnknownSetting
from amqtask.settings import Settings, redact_url

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(**load: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**{"environ": {}, **load})
    return f"{caught.value} | {caught.value.hint}"


# -- defaults and shape -------------------------------------------------------


def test_defaults():
    """An app that says nothing gets one local broker and safe queues."""
    settings = Settings.load(environ={})
    assert settings == Settings()
    assert settings.broker == ("amqp://guest:guest@127.0.0.1:5672/",)
    assert (settings.queue_type, settings.delivery_limit, settings.declare) == (
        "quorum",
        20,
        "auto",
    )
    assert (settings.backend, settings.prefetch, settings.compression) == (None, None, None)


def test_frozen_and_replaceable():
    """Settings never change; a changed copy is checked as well."""
    settings = Settings()
    with pytest.raises(FrozenInstanceError):
        settings.concurrency = 2  # type: ignore[misc]
    assert replace(settings, concurrency=2).concurrency == 2
    with pytest.raises(ConfigurationError, match="setting 'concurrency' in Settings is 0"):
        replace(settings, concurrency=0)


def test_pickles():
    """A spawned child gets the same settings."""
    settings = Settings(broker="amqps://a:b@h/", imports="one,two")  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize("given", ["amqp://a/, amqp://b/", ["amqp://a/", "amqp://b/"]])
def test_broker_forms(given):
    """Brokers come as a list or as text with commas."""
    assert Settings(broker=given).broker == ("amqp://a/", "amqp://b/")


def test_default_values_pass_their_own_check():
    """Every default is a value that the setting itself accepts."""
    settings = Settings()
    for item in fields(Settings):
        assert getattr(settings, item.name) == item.default, item.name


# -- precedence ---------------------------------------------------------------


def test_precedence(tmp_path):
    """Environment beats arguments beats source beats pyproject beats defaults."""
    path = write(
        tmp_path, "[tool.amqtask]\nconcurrency = 1\nprocesses = 1\nheartbeat = 1\nprefetch = 1"
    )
    settings = Settings.load(
        environ={"AMQTASK_CONCURRENCY": "4"},
        values={"concurrency": 3, "processes": 3},
        source={"concurrency": 2, "processes": 2, "heartbeat": 2},
        pyproject=path,
    )
    assert (settings.concurrency, settings.processes) == (4, 3)
    assert (settings.heartbeat, settings.prefetch) == (2, 1)
    assert settings.exchange == "amqtask"


def test_process_environment_is_the_default(monkeypatch):
    """Without an environ argument the process's own variables count."""
    monkeypatch.setenv("AMQTASK_DEFAULT_QUEUE", "mine")
    assert Settings.load().default_queue == "mine"


# -- unknown keys -------------------------------------------------------------


def test_unknown_in_pyproject(tmp_path):
    """A typing error in pyproject.toml is named with its place and a near name."""
    path = write(tmp_path, '[tool.amqtask]\nbrokr = "amqp://h/"')
    with pytest.raises(UnknownSetting) as caught:
        Settings.load(environ={}, pyproject=path)
    assert str(caught.value) == (
        "unknown setting 'brokr' in [tool.amqtask] of pyproject.toml, did you mean 'broker'?"
    )


def test_unknown_in_environment():
    """A typing error in a variable is an error, and is answered with a variable."""
    with pytest.raises(UnknownSetting) as caught:
        Settings.load(environ={"AMQTASK_CONCURENCY": "4"})
    assert str(caught.value) == (
        "unknown setting 'AMQTASK_CONCURENCY' in the environment,"
        " did you mean 'AMQTASK_CONCURRENCY'?"
    )


def test_unknown_in_arguments():
    """The same for the app's own arguments; a name like no other gets no suggestion."""
    with pytest.raises(UnknownSetting) as caught:
        Settings.load(environ={}, values={"zzz": 1})
    assert str(caught.value) == "unknown setting 'zzz' in the app's arguments"


def test_unknown_in_source():
    """The same for a mapping, a module and a class."""
    module = types.ModuleType("conf")
    module.brokr = "amqp://h/"  # type: ignore[attr-defined]

    class Conf:
        brokr = "amqp://h/"

    near = ", did you mean 'broker'?"
    for source, where in [
        ({"brokr": 1}, "the settings mapping"),
        (module, "module 'conf'"),
        (Conf, f"object {Conf.__qualname__!r}"),
        (Conf(), f"object {Conf.__qualname__!r}"),
    ]:
        with pytest.raises(UnknownSetting) as caught:
            Settings.load(environ={}, source=source)
        assert str(caught.value) == f"unknown setting 'brokr' in {where}{near}"


def test_reserved_names(tmp_path):
    """What the command line and the test suite read is left to them."""
    path = write(tmp_path, '[tool.amqtask]\napp = "proj:app"')
    environ = {"AMQTASK_APP": "p:a", "AMQTASK_REQUIRE": "x", "AMQTASK_TEST_URL": "y", "PATH": "/"}
    assert Settings.load(environ=environ, pyproject=path) == Settings()


# -- sources ------------------------------------------------------------------


def test_module_source():
    """Of a module, settings are read; imports, functions, constants and classes are not."""
    module = types.ModuleType("conf")
    code = (
        "from __future__ import annotations\nimport os\nfrom pathlib import Path\n"
        "DEBUG = True\n_private = 1\ndef helper(): ...\nconcurrency = 3\nqueues = ['email']\n"
    )
    exec(code, module.__dict__)
    settings = Settings.load(environ={}, source=module)
    assert (settings.concurrency, settings.queues) == (3, ("email",))


def test_object_source():
    """Of an object, attributes are settings, and a function may be a route."""

    def choose(name, args, kwargs):
        return None

    @dataclass
    class Conf:
        timezone: str = "Europe/Paris"

    assert Settings.load(environ={}, source=Conf()).timezone == "Europe/Paris"
    route = types.SimpleNamespace(routes=choose)
    assert Settings.load(environ={}, source=route).routes == (choose,)


def test_source_must_hold_settings():
    """A module's name is no source: importing it is the caller's matter."""
    assert refusal(source="proj.conf") == (
        "settings cannot be read from 'proj.conf'"
        " | give a mapping, a module or an object with settings as attributes"
    )


def test_pyproject_without_table(tmp_path):
    """A pyproject.toml of another tool says nothing."""
    assert Settings.load(environ={}, pyproject=write(tmp_path, "[tool.ruff]")) == Settings()


def test_pyproject_missing_or_broken(tmp_path):
    """A file that was asked for and cannot be read is an error that names it."""
    missing = tmp_path / "nowhere.toml"
    assert refusal(pyproject=missing) == (
        f"cannot read {str(missing)!r}: No such file or directory | check the path, or leave it out"
    )
    path = write(tmp_path, "[tool.amqtask")
    assert refusal(pyproject=path).startswith(f"cannot read {str(path)!r}: ")
    path = write(tmp_path, "[tool]\namqtask = 1")
    assert refusal(pyproject=path) == "[tool.amqtask] of pyproject.toml is 1 | write it as a table"


# -- values from the environment ----------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("BROKER", "amqp://a/,amqps://b/", "broker", ("amqp://a/", "amqps://b/")),
        ("BACKEND", "rpc://", "backend", "rpc://"),
        ("BACKEND", "", "backend", None),
        ("COMPRESSION", "None", "compression", None),
        ("QUEUES", "email, reports", "queues", ("email", "reports")),
        (
            "ROUTES",
            "email.*=email,r.*=reports",
            "routes",
            (("email.*", "email"), ("r.*", "reports")),
        ),
        ("ACCEPT_CONTENT", "json,msgpack", "accept_content", ("json", "msgpack")),
        ("IMPORTS", "", "imports", ()),
        ("PUBLISH_TIMEOUT", "2.5", "publish_timeout", 2.5),
        ("PREFETCH", "8", "prefetch", 8),
        ("PREFETCH", "none", "prefetch", None),
        ("IGNORE_RESULT", "Yes", "ignore_result", True),
        ("IGNORE_RESULT", "off", "ignore_result", False),
        ("LOGLEVEL", "DEBUG", "loglevel", "debug"),
        ("QUEUE_TYPE", "classic", "queue_type", "classic"),
        ("HEARTBEAT", "0", "heartbeat", 0),
    ],
)
def test_environment_values(variable, text, name, value):
    """Text becomes what the setting is: words, numbers, lists by commas."""
    settings = Settings.load(environ={f"AMQTASK_{variable}": text})
    assert getattr(settings, name) == value
    assert type(getattr(settings, name)) is type(value)


@pytest.mark.parametrize(
    ("variable", "text", "accepted"),
    [
        ("CONCURRENCY", "many", "a whole number of at least 1"),
        ("CONCURRENCY", "", "a whole number of at least 1"),
        ("PREFETCH", "70000", "a whole number from 1 to 65535, or none"),
        ("PUBLISH_TIMEOUT", "nan", "a number of seconds above 0"),
        (
            "IGNORE_RESULT",
            "maybe",
            "true or false (also yes/no, on/off, 1/0 in the environment)",
        ),
        ("DECLARE", "always", "one of auto, passive, never"),
        ("ACCEPT_CONTENT", ",", "one serializer name or a list of them"),
        (
            "ROUTES",
            "email",
            (
                'a list of rules, like [("email.*", "email")]'
                " or, as text, email.*=email,report.*=reports"
            ),
        ),
        ("TIMEZONE", "Mars/Olympus", "the name of a time zone, like Europe/Paris"),
    ],
)
def test_environment_refusals(variable, text, accepted):
    """A wrong value is named with its variable, and with what is accepted."""
    assert refusal(environ={f"AMQTASK_{variable}": text}) == (
        f"setting {variable.lower()!r} in the environment (AMQTASK_{variable}) is {text!r}"
        f" | accepted: {accepted}"
    )


# -- values from Python -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", "16"),
        ("concurrency", True),
        ("concurrency", 1.0),
        ("processes", 0),
        ("prefetch", 0),
        ("heartbeat", -1),
        ("delivery_limit", -1),
        ("publish_timeout", 0),
        ("publish_timeout", float("inf")),
        ("connect_timeout", "10"),
        ("result_expires", 10**400),
        ("ignore_result", 1),
        ("default_queue", ""),
        ("exchange", None),
        ("backend", ""),
        ("broker", ()),
        ("broker", 5),
        ("broker", {"a": 1}),
        ("imports", [1]),
        ("queues", [1]),
        ("queues", {"email": 1}),
        ("routes", ("email.*", "email")),
        ("queue_type", "stream"),
        ("loglevel", 10),
        ("timezone", None),
        ("max_message_size", 0),
    ],
)
def test_python_refusals(name, value):
    """Values from code are taken as they are: no text for numbers, no number for a flag."""
    assert refusal(values={name: value}).startswith(f"setting {name!r} in the app's arguments is ")


def test_passwords_are_never_shown():
    """Neither an error nor the repr of settings shows a password."""
    text = refusal(values={"broker": ["amqp://app:s3cret@h/", 5]})
    assert text == (
        "setting 'broker' in the app's arguments is ['amqp://app:***@h/', 5]"
        " | accepted: one broker URL or a list of them"
    )
    settings = Settings(broker=("amqp://app:s3cret@h/",), backend="redis://:s3cret@h/0")
    assert repr(settings) == ("Settings(broker=('amqp://app:***@h/',), backend='redis://:***@h/0')")
    assert repr(Settings()) == "Settings()"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://app:s3cret@mq/prod", "amqp://app:***@mq/prod"),
        ("amqp://mq/prod", "amqp://mq/prod"),
        ("amqp://app@mq/prod", "amqp://app@mq/prod"),
        ("amqp://app:s3@cret/x@mq:5671/prod", "amqp://app:***@mq:5671/prod"),
        ("app:s3cret@mq", "app:***@mq"),
        ("redis://:s3cret@h/0", "redis://:***@h/0"),
        ("redis://h/0?password=s3cret&db=1", "redis://h/0?password=***&db=1"),
        ("amqp://a:s3cret@h1/, amqp://b:s3cret@h2/", "amqp://a:***@h1/,amqp://b:***@h2/"),
        ("no url", "no url"),
    ],
)
def test_redact_url(url, shown):
    """A password is hidden wherever it stands, odd characters in it included."""
    assert redact_url(url) == shown


# -- what a worker goes by ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_memory_per_child", "300MB", 300 * 1024**2),
        ("max_memory_per_child", "2 gib", 2 * 1024**3),
        ("max_memory_per_child", "none", None),
        ("autoscale", "1,4", (1, 4)),
        ("autoscale", "none", None),
        ("shutdown_timeout", "0", 0.0),
        ("shutdown_timeout", "none", None),
        ("deaf_timeout", "0", 0.0),
        ("health_port", "0", 0),
    ],
)
def test_a_worker_setting_in_the_environment(name: str, text: str, value: object):
    """Each in the form that its option has too."""
    found = Settings.load(environ={f"AMQTASK_{name.upper()}": text})
    assert getattr(found, name) == value


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("max_memory_per_child", "much", "a number of bytes, or a size like 300MB"),
        ("max_memory_per_child", 0, "a number of bytes, or a size like 300MB"),
        ("max_memory_per_child", True, "a number of bytes, or a size like 300MB"),
        ("autoscale", "4,1", "the least and the most, like 1,4"),
        ("autoscale", (1, 2, 3), "the least and the most, like 1,4"),
        ("autoscale", (0, 2), "the least and the most, like 1,4"),
        ("autoscale", (True, 2), "the least and the most, like 1,4"),
        ("autoscale", (1.0, 2), "the least and the most, like 1,4"),
        ("shutdown_timeout", -1, "a number of seconds of at least 0"),
        ("cleanup_timeout", 0, "a number of seconds above 0"),
        ("health_port", 70000, "a whole number from 0 to 65535"),
    ],
)
def test_a_worker_setting_that_is_wrong(name: str, value: object, accepted: str):
    """The refusal says what is accepted."""
    assert accepted in refusal(values={name: value})

"""Names of tasks: one function each, the same in script and worker."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from amqtask import ConfigurationError, UnknownTask
from amqtask.registry import task_name
from tests.unit.desk.recorder import make_app


def _function(module: str = "shop.mail", name: str = "send") -> Any:
    def function() -> None: ...

    function.__module__, function.__qualname__ = module, name
    return function


def test_named_after_module_and_function() -> None:
    """As Celery names them."""
    assert task_name(_function()) == "shop.mail.send"


@pytest.mark.parametrize(
    ("main", "name"),
    [
        ({"__spec__": None, "__file__": "/srv/shop/jobs.py"}, "jobs.send"),
        ({"__spec__": SimpleNamespace(name="shop.jobs")}, "shop.jobs.send"),
        ({"__spec__": SimpleNamespace(name="shop.__main__")}, "shop.send"),
        ({"__spec__": None, "__file__": None}, "__main__.send"),
    ],
)
def test_a_script_means_the_module_that_a_worker_imports(
    monkeypatch: pytest.MonkeyPatch, main: dict[str, Any], name: str
) -> None:
    """python jobs.py and python -m shop.jobs send what a worker of jobs, or shop.jobs, knows."""
    module = ModuleType("__main__")
    vars(module).update(main)
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert task_name(_function("__main__")) == name


def test_a_name_belongs_to_one_function() -> None:
    """Two functions under one name would run by luck; the error names both."""
    app, _ = make_app()
    app.task(name="send")(_function("shop.mail", "send"))
    with pytest.raises(ConfigurationError) as caught:
        app.task(name="send")(_function("shop.sms", "text"))
    assert str(caught.value) == "two tasks are called 'send': shop.mail.send and shop.sms.text"
    assert caught.value.hint == 'give one of them another name: @app.task(name="...")'


def test_the_same_function_again_is_no_clash() -> None:
    """A module that is reloaded, or imported under a second name, registers again."""
    app, _ = make_app()
    app.task(_function())
    again = app.task(_function())
    assert app.tasks["shop.mail.send"] is again
    assert len(app.tasks) == 1


def test_an_unknown_task_has_a_near_name() -> None:
    """What to do is said: the module was not imported, or the code is older."""
    app, _ = make_app()
    app.task(_function())
    with pytest.raises(UnknownTask) as caught:
        app.tasks["shop.mail.sent"]
    assert str(caught.value) == "unknown task 'shop.mail.sent', did you mean 'shop.mail.send'?"
    assert caught.value.hint == (
        "import its module in the worker (imports=), or deploy the code that has it"
    )
    assert app.tasks.get("shop.mail.sent") is None


def test_listed_by_name() -> None:
    """In the same order whatever module came first."""
    app, _ = make_app()
    for name in ("c", "a", "b"):
        app.task(_function("m", name))
    assert list(app.tasks) == ["m.a", "m.b", "m.c"]
    assert [task.name for task in app.tasks.values()] == ["m.a", "m.b", "m.c"]

"""The guide's backend of one's own is found by its entry point, and does what a backend does."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from amqtask import ConfigurationError
from amqtask.backends import KeyStore, Pending, opening
from tests.contract.backends.conftest import Ends, MakeApp
from tests.contract.backends.test_outcomes import (
    test_a_failure_arrives as a_failure_arrives,
)
from tests.contract.backends.test_outcomes import (
    test_a_timeout as a_timeout,
)
from tests.contract.backends.test_outcomes import (
    test_a_waiting_thread_is_woken as a_waiting_thread_is_woken,
)
from tests.contract.backends.test_outcomes import (
    test_forget as forgetting,
)
from tests.contract.backends.test_outcomes import (
    test_nothing_is_left_after_close as nothing_is_left_after_close,
)
from tests.contract.backends.test_outcomes import (
    test_states_on_the_way as states_on_the_way,
)
from tests.contract.backends.test_outcomes import (
    test_values_arrive as values_arrive,
)
from tests.contract.backends.test_stored import (
    test_a_failure_may_be_replaced as a_failure_may_be_replaced,
)
from tests.contract.backends.test_stored import (
    test_a_success_is_never_replaced as a_success_is_never_replaced,
)
from tests.contract.backends.test_stored import (
    test_all_that_a_record_holds as all_that_a_record_holds,
)
from tests.contract.backends.test_stored import (
    test_an_unknown_call_is_pending as an_unknown_call_is_pending,
)
from tests.contract.backends.test_stored import (
    test_groups as groups,
)

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_backend" / "backend.py"

CONTRACT = [
    a_failure_arrives,
    a_timeout,
    a_waiting_thread_is_woken,
    forgetting,
    nothing_is_left_after_close,
    states_on_the_way,
    values_arrive,
    a_failure_may_be_replaced,
    a_success_is_never_replaced,
    all_that_a_record_holds,
    an_unknown_call_is_pending,
    groups,
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example, as if its package were installed."""
    spec = importlib.util.spec_from_file_location("own_backend_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "own_backend_example", module)
    points = [
        EntryPoint("dbm", "own_backend_example:DbmStore", opening.ENTRY_POINTS),
        EntryPoint("broken", "own_backend_example:NoSuchThing", opening.ENTRY_POINTS),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: EntryPoints(points))


@pytest.mark.parametrize("holds", CONTRACT, ids=lambda test: test.__name__.removeprefix("test_"))
@pytest.mark.usefixtures("installed")
def test_the_example(holds: object, open_app: MakeApp, tmp_path: Path):
    """All of the contract that is not about what it says it cannot do."""
    url = f"dbm://{tmp_path}"
    assert callable(holds)
    holds(Ends(open_app(url), open_app(url), lambda _: ""))


@pytest.mark.usefixtures("installed")
def test_an_entry_point_that_cannot_be_loaded(open_app: MakeApp):
    """The error names it."""
    with pytest.raises(ConfigurationError, match="'own_backend_example:NoSuchThing' cannot"):
        open_app("broken://")


@pytest.mark.usefixtures("installed")
def test_a_wrong_scheme_names_those_there_are(open_app: MakeApp):
    """Other packages' backends are among them."""
    with pytest.raises(ConfigurationError, match="did you mean 'dbm'") as caught:
        open_app("dbmm://x")
    assert caught.value.hint is not None
    assert "dbm://" in caught.value.hint
    assert "redis://" in caught.value.hint


def test_the_port_is_what_the_guide_says():
    """A new backend needs three methods."""
    assert KeyStore.__abstractmethods__ == {"read", "write", "delete"}
    assert Pending("x").ready is False

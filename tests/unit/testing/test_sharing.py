"""Which tests one process runs together, in a run of several."""

from __future__ import annotations

import pytest

from tests import sharing
from tests.sharing import unit_of


@pytest.mark.parametrize(
    ("nodeid", "unit"),
    [
        ("tests/unit/test_face.py::test_one", "tests/unit/test_face.py"),
        ("tests/contract/test_a.py::test_one[rabbitmq4-x]", "tests/contract/test_a.py on rabbitmq4"),
        ("tests/contract/test_a.py::test_two[y-rabbitmq]", "tests/contract/test_a.py on rabbitmq"),
        ("tests/contract/test_a.py::test_three[x-y]", "tests/contract/test_a.py"),
        ("tests/contract/test_a.py::test_four[a::b[c]-embedded]", "tests/contract/test_a.py on embedded"),
        ("tests/interop/test_a.py::test_one[embedded]", "interop on embedded"),
        ("tests/interop/test_b.py::test_one[embedded]", "interop on embedded"),
        ("tests/interop/test_b.py::test_two", "interop"),
        ("tests/acceptance/test_a.py::test_one[rabbitmq]", "tests/acceptance/test_a.py::test_one[rabbitmq]"),
        ("test_elsewhere.py::test_one", "test_elsewhere.py"),
    ],
)  # fmt: skip
def test_units(nodeid: str, unit: str) -> None:
    """A test of its own in acceptance, a broker in interop, a file on a broker elsewhere."""
    assert unit_of(nodeid) == unit


def test_the_number_of_processes_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """By pytest-xdist's own variable; else it follows from the cores."""
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
    number = sharing.pytest_xdist_auto_num_workers()
    assert number is not None
    assert 2 <= number <= 12
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "3")
    assert sharing.pytest_xdist_auto_num_workers() is None

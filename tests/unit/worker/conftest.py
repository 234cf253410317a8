"""What tests of settling begin with."""

from __future__ import annotations

import pytest

from tests.unit.worker.settling import Desk


@pytest.fixture
def desk() -> Desk:
    return Desk()

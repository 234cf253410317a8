"""A publisher on a link without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from amqtask.transport import Publisher
from tests.unit.transport.fakes import FakeLink, as_link


@pytest.fixture
async def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
async def publisher(link: FakeLink) -> AsyncIterator[Publisher]:
    made = Publisher(as_link(link), max_message_size=1000)
    made.start()
    yield made
    await made.close()

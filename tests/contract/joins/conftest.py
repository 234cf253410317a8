"""Shops on every broker and store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.backends.places import places
from tests.contract.joins.shop import (
    LISTING,
    QUEUES,
    STORES,
    Shop,
)


@pytest.fixture(scope="session")
def _stores(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    with places(request) as place:
        yield place


@pytest.fixture
def make_shop(request: pytest.FixtureRequest, _stores: Callable[[str], str]) -> Iterator[Any]:
    made: list[Shop] = []

    def make(kind: str, **settings: Any) -> Shop:
        if kind in QUEUES:
            shop = Shop(request.getfixturevalue(kind).url, None, **settings)
        else:
            broker = request.getfixturevalue("any_broker").url
            shop = Shop(broker, _stores(kind), **settings)
        made.append(shop)
        return shop

    yield make
    for shop in made:
        shop.close()


@pytest.fixture(params=[*QUEUES, *STORES])
def shop(request: pytest.FixtureRequest, make_shop: Any) -> Shop:
    """Two workers of each kind of join."""
    made: Shop = make_shop(request.param)
    return made


@pytest.fixture(params=QUEUES)
def queues(request: pytest.FixtureRequest, make_shop: Any) -> Shop:
    """Two workers that join by queues, on each broker."""
    made: Shop = make_shop(request.param)
    return made


@pytest.fixture(params=LISTING)
def listing(request: pytest.FixtureRequest, make_shop: Any) -> Shop:
    """Two workers of each store that lists open chords, where one is given up after a second."""
    made: Shop = make_shop(request.param, join_expires=1.0)
    return made


@pytest.fixture(params=[*QUEUES, *LISTING])
def any_listing(request: pytest.FixtureRequest, make_shop: Any) -> Shop:
    """Two workers of each kind of join that knows its open chords."""
    made: Shop = make_shop(request.param)
    return made

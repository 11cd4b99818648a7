"""A bundle and an empty bundle, open for queries."""

import pytest

from lfp.bundle.store.connection import Store


@pytest.fixture(scope="module")
def store(bundle):
    with Store.open(bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def none(empty_bundle):
    with Store.open(empty_bundle) as opened:
        yield opened

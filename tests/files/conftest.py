"""How much damage is tried: some of it in the fast suite, eight times as much in the slow one."""

import pytest


@pytest.fixture(params=[1, pytest.param(8, marks=pytest.mark.slow)], ids=["some", "much"])
def times(request: pytest.FixtureRequest) -> int:
    return int(request.param)

"""How much damage is tried: some of it in the fast suite, four times as much in the slow one."""

import pytest
from files.damage import TRIED


@pytest.fixture(params=[1, pytest.param(4, marks=pytest.mark.slow)], ids=["some", "much"])
def times(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TRIED:
        told = ", ".join(f"{count:,} {what}" for what, count in sorted(TRIED.items()))
        terminalreporter.write_line(f"damaged files: {told}")

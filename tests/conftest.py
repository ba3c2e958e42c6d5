"""A whole run of the kitchen, small enough for seconds, made once and shared by the tests of the stages."""

import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import tests_cores  # noqa: F401  before torch, which counts the cores when it is imported
import tests_postgres
from tests_small import METHODS, SMALL, small_recipe

from palate import flow, metrics
from palate import recipe as recipes
from palate.recipe import Recipe
from palate.workspace import FOLDERS, Workspace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The demo comes first: at the end one process would wait minutes for it."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


@pytest.fixture(scope="session", autouse=True)
def calls_out() -> Iterator[list[str]]:
    """No test opens a connection, and what tried to is listed: a program may swallow the error that it gets."""
    tried: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for place, name in (
            (socket.socket, "connect"),
            (socket.socket, "connect_ex"),
            (socket.socket, "sendto"),
            (socket, "getaddrinfo"),
        ):

            def refuse(*values: object, name: str = name, **_: object) -> None:
                tried.append(f"{name} {values[-1]}")
                raise OSError("Palate calls nobody")

            patch.setattr(place, name, refuse)
        yield tried
    assert tried == [], "a test called out"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A server of PostgreSQL; the start of its URLs."""
    if not tests_postgres.AVAILABLE:
        pytest.skip("there is no PostgreSQL on this machine")
    with tests_postgres.server(more=tests_postgres.HASTY) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty feedback store, once in a file and once on a server: what it promises it promises on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'feedback.sqlite'}"
    return tests_postgres.empty(request.getfixturevalue("postgresql"))


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT does what it does at a terminal; shells ignore it in what they start with &."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Workspace]:
    recipe, workspace = flow.open_run(small_recipe(), tmp_path_factory.mktemp("runs") / "small")
    flow.run(recipe, workspace)
    rounds = metrics.read(workspace.logs / "ppo.jsonl")
    assert rounds, (
        "with this seed the reward model is worth nothing and PPO runs no round: its tests would test nothing"
    )
    return recipe, workspace


@pytest.fixture(scope="session")
def every_method(
    small_run: tuple[Recipe, Workspace], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Workspace]:
    """The small run with a policy of every method, and the report of them all."""
    place = tmp_path_factory.mktemp("methods") / "small"
    shutil.copytree(small_run[1].folder, place)
    shutil.rmtree(place / FOLDERS["report"])
    recipe, workspace = flow.open_run(recipes.parse(SMALL + METHODS, "methods.toml"), place)
    flow.run(recipe, workspace)
    return recipe, workspace

"""A whole run of the kitchen, small enough for seconds, made once and shared by the tests of the stages."""

import pytest
from tests_small import small_recipe

from palate import flow
from palate.recipe import Recipe
from palate.workspace import Workspace


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Workspace]:
    recipe, workspace = flow.open_run(small_recipe(), tmp_path_factory.mktemp("runs") / "small")
    flow.run(recipe, workspace)
    return recipe, workspace

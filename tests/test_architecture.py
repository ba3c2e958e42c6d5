"""The house: imports go down the floors, stages are strangers, the command line needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import palate
from palate import workspace
from palate.recipe import Recipe
from palate.stages import STAGES

PACKAGE = Path(palate.__file__).parent
ROOT = PACKAGE.parent
FLOORS = {
    "errors": 0, "ranks": 0,
    "records": 1, "recipe": 1, "workspace": 1, "metrics": 1,
    "text": 2, "sources": 2, "feedback": 2, "kitchen": 2, "scorers": 2,
    "device": 3, "nn": 3, "objectives": 3, "batches": 3,
    "weights": 4,
    "train": 5, "generate": 5, "measure": 5,
    "align": 6, "report": 6,
    "studio": 7,
    "stages": 8, "dial": 8,
    "flow": 8.5,
    "commands": 8.7,
    "cli": 9, "api": 9, "__main__": 9,
}  # fmt: skip
"""Where each unit lives. `flow`, the run order, stands between the stages it starts and who starts it: the doors, and
the commands that measure whole runs."""
WORLDLY = {"stages", "cli", "kitchen"}
"""Only these know the kitchen."""


def imports(path: Path) -> Iterator[str]:
    """Every module of Palate that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("palate"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("palate"):
            if node.module == "palate":
                yield from (f"palate.{alias.name}" for alias in node.names)
            else:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unit(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def modules() -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py" and "migrations" not in p.parts]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        there = unit(module)
        if there in ("", here):
            continue
        if here == "measure" and module.startswith("palate.measure"):
            continue
        assert FLOORS[there] <= FLOORS[here], f"{path.name} ({here}) imports {module}, which is above it"
        if there == "kitchen":
            assert here in WORLDLY, f"{path.name} knows the kitchen"


def test_stages_are_strangers() -> None:
    for path in (PACKAGE / "stages").glob("*.py"):
        if path.name == "__init__.py":
            continue
        others = [m for m in imports(path) if m.startswith("palate.stages.")]
        assert not others, f"{path.name} imports {others}"


def test_every_stage_has_its_five_things() -> None:
    for stage in STAGES:
        assert (PACKAGE / "stages" / f"{stage.name}.py").is_file()
        assert set(stage.sections) <= set(Recipe.model_fields)
        assert (ROOT / "tests" / "stages" / f"test_{stage.name}.py").is_file(), f"{stage.name} has no test file"
        assert (ROOT / "docs" / f"{stage.name}.md").is_file(), f"{stage.name} has no page in docs/"
        assert f"palate/stages/{stage.name}.py" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_makers_of_artifacts_are_the_stages() -> None:
    assert {stage.writes: stage.name for stage in STAGES} == workspace.MAKERS


def test_the_command_line_needs_no_torch() -> None:
    code = "import sys, palate, palate.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_public_api_is_frozen() -> None:
    assert dir(palate) == ["Assistant", "load", "open_feedback", "run", "score"]
    for name in dir(palate):
        assert getattr(palate, name).__doc__


def test_no_dependency_with_a_licence_we_refuse() -> None:
    """What Palate installs, however deep, not the tools of its tests. Of several licences one is enough."""
    import re
    from importlib import metadata

    seen: set[str] = set()
    queue = ["palate"]
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # a dependency of another platform
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                queue.append(re.split(r"[ ;<>=!~\[(]", requirement)[0])
        if name == "palate":
            continue
        told = distribution.metadata
        licence = told.get("License-Expression") or " ".join(told.get_all("Classifier") or ())
        choices = [c for c in licence.split(" OR ") if not re.search(r"\bA?GPL|GNU (Affero )?General Public", c)]
        assert choices, f"{name}: {licence}"

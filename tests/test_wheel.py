"""What `pip install palate` brings, without the clone it was built from."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import palate

ROOT = Path(palate.__file__).parent.parent
PROGRAM = """
import sys, palate
from pathlib import Path
from starlette.testclient import TestClient
from palate.cli import recipe_folder
from palate.feedback.people import Person
from palate.feedback.queue import Queue
from palate.feedback.store import open_store
from palate.records import Prompt, Response, conversation
from palate.studio.app import build
from palate.studio.here import Studio

folder = Path(sys.argv[1])
assert Path(palate.__file__).is_relative_to(folder), palate.__file__
assert (recipe_folder() / "kitchen.toml").is_relative_to(folder)
with open_store(f"sqlite:///{folder}/feedback.sqlite") as store:
    prompt = Prompt(id="p", messages=conversation("What?"), family="f")
    responses = [Response(id=i, prompt_id="p", text=i) for i in "ab"]
    store.add_prompts([prompt], "c")
    store.add_responses(responses, "c")
    Queue(store, "c").lay([prompt], responses, random_share=0.3)
    studio = Studio(store, "c", lambda: "c", title="c", single=Person("ann", frozenset({"lead"})))
    with TestClient(build(studio), base_url="http://127.0.0.1") as client:
        for path in ("/", "/rank", "/guidelines/text", "/static/studio.css", "/static/rank.js"):
            assert client.get(path).status_code == 200, path
assert "torch" not in sys.modules
"""


@pytest.mark.slow
def test_a_wheel_has_all_that_the_studio_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    folder = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as held:
        held.extractall(folder)
    environment = {"PYTHONPATH": str(folder), "PATH": ""}
    subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], check=True, env=environment, cwd=tmp_path)

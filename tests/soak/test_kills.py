"""Eight kills at random places of one run; the whole is `make soak` (docs/reliability.md)."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it forks, and looks into /proc")
def test_a_run_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """What the killed run ends with equals what an undisturbed one does, byte for byte; `kills.py` compares."""
    script = Path(__file__).parent / "kills.py"
    asked = ["--kills", "8", "--seed", "1", "--keep", str(tmp_path)]
    told = subprocess.run([sys.executable, str(script), *asked], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-2000:]
    last = told.stdout.splitlines()[-1]
    assert int(last.split()[0]) >= 6 and "every file is equal" in last

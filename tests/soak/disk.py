"""A disk that fills in every stage: one line, and with room again the same command ends with the same bits.

    sudo python tests/soak/disk.py

The run lies on a small filesystem in memory (mounting it needs root). When a stage begins, a file takes all the room
but a part of what the stage will write; the command must end with one line and an exit code that is not 0. Then the
file goes, and the next part is tried. At the end the run must equal one that always had room (see kills.py).
"""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from palate import cli, flow, workspace
from palate.stages import BY_NAME

sys.path.insert(0, str(Path(__file__).parent))
import kills

PARTS = (0.0, 0.02, 0.1, 0.3, 0.6, 0.9)
"""Of what the stage's artifact takes: the room that is left when it begins."""
MEGABYTES = 24


def fill(ballast: Path, left: int) -> None:
    """Take all the room there is but `left` bytes."""
    ballast.write_bytes(b"")
    free = os.statvfs(ballast).f_bavail * os.statvfs(ballast).f_frsize
    with ballast.open("wb") as file:
        file.write(b"\1" * max(free - left, 0))


def one_attempt(folder: Path, ballast: Path, stage: str, left: int) -> int:
    """The command in a forked child, with no more than `left` bytes from the beginning of `stage` on; its exit code, or
    0 when the stage was finished."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 99
    try:
        original = flow.run_stage

        def run_stage(name: str, recipe: Any, place: workspace.Workspace) -> bool:
            here = f"{place.folder.name} {name}" if place.parent is not None else name
            if here == stage:
                fill(ballast, left)
            made = original(name, recipe, place)
            if here == stage:
                os._exit(0)
            return made

        flow.run_stage = run_stage
        with kills.output_to(folder.parents[2] / "output.txt"):
            cli.main(["run", str(folder.parents[2] / "small.toml"), "--run", str(folder)])
            code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def main() -> int:
    if os.geteuid():
        print("skipped: mounting a small filesystem needs root")
        return 0
    home = Path(tempfile.mkdtemp(prefix="disk-"))
    calm, place = home / "calm" / "run", home / "disk"
    kills.make_undisturbed(calm, rounds=1)
    kills.import_everything()
    (home / "small.toml").write_text(kills.SMALL)
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "palate-soak", str(place)], check=True)
    output, wrong = home / "output.txt", []
    try:
        run, ballast = place / "run" / "run", place / "ballast"
        run.parent.mkdir()
        told: collections.Counter[str] = collections.Counter()
        for stage in kills.STAGES_OF_A_RUN:
            control, _, name = stage.rpartition(" ")
            made = calm / "controls" / control if control else calm
            size = sum(p.stat().st_size for p in (made / workspace.FOLDERS[BY_NAME[name].writes]).rglob("*"))
            for part in PARTS:
                before = output.stat().st_size if output.exists() else 0
                code = one_attempt(run, ballast, stage, int(size * part))
                ballast.unlink()
                if code == 0:
                    break  # there was enough room
                text = output.read_bytes()[before:].decode()
                lines = [line for line in text.splitlines() if line.startswith("palate: ")]
                told[stage] += 1
                print(f"{stage:20} {part:4.0%}  exit code {code}  {lines[-1] if lines else text[-300:]}", flush=True)
                if code not in (1, 3) or len(lines) != 1 or "Traceback" in text:
                    wrong.append(f"{stage} with room for {part:.0%}: exit code {code}")
            if one_attempt(run, place / "nothing", stage, 2**40) != 0:
                wrong.append(f"{stage}: with room again it did not go on")
            (place / "nothing").unlink(missing_ok=True)
        wrong += kills.differences(calm, run)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    verdict = "; ".join(wrong) or "one line each, and every file is equal"
    print(f"{told.total()} times full in {len(told)} stages: {verdict}")
    shutil.rmtree(home)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The list of faults does not rot: what it would change is there, and so are its tests. `make mutants` hunts."""

import ast
import subprocess
from pathlib import Path

import pytest
from mutants.hunt import ROOT, Fault, faults

from palate.device import compiler


@pytest.mark.parametrize("fault", faults(), ids=lambda f: f.told[:60])
def test_a_fault_can_be_put_in_and_its_test_exists(fault: Fault) -> None:
    text = (ROOT / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.old) == 1, f"{fault.file} holds {text.count(fault.old)} times {fault.old!r}"
    assert fault.new != fault.old
    changed = text.replace(fault.old, fault.new)
    if fault.file.endswith(".py"):
        ast.parse(changed)
    elif program := compiler("cpu"):  # what does not compile is done without, and its tests fail for that alone
        subprocess.run([program, "-fsyntax-only", "-x", "c++", "-"], input=changed, text=True, check=True)
    path, name = fault.test.split("::")
    tree = ast.parse((ROOT / Path(path)).read_text(encoding="utf-8"))
    assert name.split("[")[0] in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_are_enough_and_none_twice() -> None:
    listed = faults()
    assert len(listed) >= 40
    texts = {f.file: (ROOT / f.file).read_text(encoding="utf-8") for f in listed}
    assert len({(f.file, texts[f.file].replace(f.old, f.new)) for f in listed}) == len(listed)

import os
import signal
from pathlib import Path

import pytest
import torch

from palate.train import resume
from palate.train.update import Learner


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_the_state_to_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the middle of torch.save aborts the process: no line, no exit code of ours, a lost step."""
    model = torch.nn.Linear(2, 1)
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=1.0))
    save = torch.save

    def save_and_ctrl_c(state: object, file: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(state, file)

    monkeypatch.setattr(torch, "save", save_and_ctrl_c)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        resume.save(tmp_path, 7, {"sft": learner})
    assert signal.getsignal(signal.SIGINT) == before
    weight = model.weight.detach().clone()
    model.weight.data.zero_()
    assert resume.load(tmp_path, {"sft": learner}) == (7, {})
    assert torch.equal(model.weight, weight)

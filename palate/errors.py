"""Every error Palate raises on purpose.

    PalateError                  what people see: one line that says what, where and what to do
      RecipeError                the recipe cannot be used as written
      BadInput                   a file or record that came from outside cannot be used
      MissingArtifact            a stage needs what an earlier stage makes
      BrokenArtifact             a finished artifact does not hold what its manifest says
      FolderBusy                 another process is working in this run folder
      GateClosed                 a measured condition for going on is not met (for example: reward model too weak)
      NotFinite                  a loss, gradient or reward became NaN or infinite; nothing was updated
      Unsupported                an architecture, format or device Palate does not know
      ScorerFailed               a reward function, verifier or judge gave no finite number for an answer

The command line prints the message without a traceback and exits with `exit_code`. A bug of ours is an
`AssertionError` or any other exception and does get its traceback.
"""

from __future__ import annotations

from pathlib import Path

LONGEST = 600
"""Characters of a message; a file's path, what is wrong and what to do fit."""


class PalateError(Exception):
    """Something a person can mend; the message is one line that says what, where and what to do."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def _one_line(text: str) -> str:
    """What a damaged file holds gets into messages: no line breaks, no control characters, no pages of it."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST * 2 // 3]} ... {line[-LONGEST // 3 :]}"


class RecipeError(PalateError):
    """The recipe cannot be used as written; the message says what to change."""

    exit_code = 2


class BadInput(PalateError):
    """A file or record from outside that cannot be used.

    what: what is wrong, where: file (and line), mend: what to do about it.
    """

    exit_code = 3

    def __init__(self, what: str, where: str | Path, mend: str) -> None:
        super().__init__(f"{where}: {what} {mend}")
        self.what, self.where, self.mend = what, str(where), mend


class MissingArtifact(PalateError):
    """A stage was asked to run before the stage that makes its input."""

    exit_code = 4

    def __init__(self, need: str, maker: str, run: str | Path) -> None:
        super().__init__(f"{run}/{need} does not exist yet. Run `palate {maker} {run}` first.")


class BrokenArtifact(PalateError):
    """A finished artifact was changed or damaged after it was published."""

    exit_code = 5


class FolderBusy(PalateError):
    """Another process holds this run folder."""

    exit_code = 6


class GateClosed(PalateError):
    """A measured condition for going on is not met."""

    exit_code = 7


class NotFinite(PalateError):
    """NaN or infinity in a loss, gradient or reward; the step was not taken."""

    exit_code = 8


class Unsupported(PalateError):
    """An architecture, file format or device that Palate does not know; the message names what it does."""

    exit_code = 9


class ScorerFailed(PalateError):
    """A reward function, verifier or judge gave no finite number for an answer. It is never taken for a score."""

    exit_code = 10

"""A person's own Python function as a scorer: "rewards.py:brief" or "package.module:brief".

The function is a scorer as every other (`contract.Scorer`), called with lists:

    def brief(prompts: list[Prompt], texts: list[str]) -> list[float]:
        return [-len(text.split()) for text in texts]

A batch at a time, because what takes a batch can also go through it one by one, and a function with a network of its
own must not have to. Where it crashes, training stops and the file and line of the person's own code are named; a crash
is never a score.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from palate.errors import BadInput, ScorerFailed
from palate.records import Prompt
from palate.scorers.contract import Scorer, checked


def load(name: str) -> Scorer:
    """The function that `name` names, as a scorer. Its file is run, as Python's `import` would.

    Raises BadInput when there is no such file or function or the file cannot be run. The scorer raises ScorerFailed.
    """
    place, _, attribute = name.rpartition(":")
    path = source(name)
    module = _run_file(path) if place.endswith(".py") else _import(place, path)
    function = getattr(module, attribute, None)
    if not callable(function):
        named = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        near = difflib.get_close_matches(attribute, named, n=1) or named[:5]
        raise BadInput(
            f"there is no function {attribute} in it.", path, f"Check the name; it has {', '.join(near) or 'none'}."
        )
    return _told(function, path, short(name))


def short(name: str) -> str:
    """How a function is named in records: its file without the folders, or its module."""
    place, _, attribute = name.rpartition(":")
    return f"function {Path(place).name if place.endswith('.py') else place}:{attribute}"


def fingerprint(name: str) -> str:
    """SHA-256 of the function's file. What that file imports is not looked at. Raises BadInput."""
    return hashlib.sha256(_read(source(name))).hexdigest()


def source(name: str) -> Path:
    """The file in which the function is. Raises BadInput when a module is not to be found."""
    place, _, _ = name.rpartition(":")
    if place.endswith(".py"):
        return Path(place)
    try:
        found = importlib.util.find_spec(place)
    except Exception as error:  # finding package.module runs package, which is not our code
        raise BadInput(f"cannot be imported ({_said(error)}).", place, _MODULE) from None
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise BadInput("there is no such Python module.", place, _MODULE)
    return Path(found.origin)


_MODULE = 'Install it, or name a file: "rewards.py:function".'


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot be read ({reason}).", path, "Check scoring.function.name in the recipe.") from None


def _run_file(path: Path) -> types.ModuleType:
    """The file's module, made from what it holds now: a compiled copy beside it can be older within the same second."""
    content = _read(path)
    module = types.ModuleType(f"palate_scorer_{path.stem}")
    module.__file__ = str(path)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # what lies beside it can be imported, as when Python runs the file
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise BadInput(f"cannot be run: {_said(error)}.", _line(error, path), "Mend it.") from None
    finally:
        sys.path.remove(folder)
    return module


def _import(place: str, path: Path) -> types.ModuleType:
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise BadInput(f"cannot be run: {_said(error)}.", _line(error, path), "Mend it.") from None


def _told(function: Callable[..., Any], path: Path, name: str) -> Scorer:
    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        try:
            given: object = function(list(prompts), list(texts))  # lists of its own, which it may sort
            if isinstance(given, types.GeneratorType):
                given = list(given)
        except (Exception, SystemExit) as error:
            raise ScorerFailed(
                f"{_line(error, path)}: {name} failed on {len(texts)} texts: {_said(error)}. Mend it; an answer that "
                f"cannot be scored is no answer of score 0."
            ) from error
        return checked(given, name, prompts, texts)

    return score


def _line(error: BaseException, path: Path) -> str:
    """file:line of the person's code where `error` came up, or the file alone when it did not come that far."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": .")

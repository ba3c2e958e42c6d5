"""Files of other programs <-> records, both ways exactly: what a file says comes back when it is written again.

A format is read by `read_file` and written by `rows_of`; FORMATS is the list of them. What a format cannot hold is left
out, counted by reason, and told.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from palate import metrics
from palate.errors import BadInput
from palate.feedback import asked
from palate.feedback.exchange import (
    argilla,
    canonical,
    conversations,
    instructions,
    pairs,
    questions,
    rated,
    rows,
    sheets,
    summaries,
    trees,
    votes,
)
from palate.feedback.exchange.pile import Pile
from palate.feedback.exchange.turns import Left
from palate.records import Judgement, Prompt, Response

Row = Mapping[str, Any]


Kind = Literal["demonstrations", "prompts", "rankings"]
"""What a run takes from a file."""


@dataclass(frozen=True)
class Format:
    """One kind of line. `fits`: whether a row looks like it; `read`: a row into a pile; `write`: a pile into rows;
    `kind`: what its rows are first of all, or "" where they can be anything."""

    name: str
    kind: Kind | Literal[""]
    fits: Callable[[Row], bool]
    read: Callable[[Pile, Row], None]
    write: Callable[[Pile], Iterator[Row]]


LINES = (
    Format("palate", "", canonical.is_palate, canonical.read_palate, canonical.write_palate),
    Format("kway", "rankings", canonical.is_kway, canonical.read_kway, canonical.write_kway),
    Format(
        "messages",
        "demonstrations",
        conversations.is_messages,
        conversations.read_messages,
        conversations.write_messages,
    ),
    Format(
        "sharegpt",
        "demonstrations",
        conversations.is_sharegpt,
        conversations.read_sharegpt,
        conversations.write_sharegpt,
    ),
    Format("alpaca", "demonstrations", instructions.is_alpaca, instructions.read_alpaca, instructions.write_alpaca),
    Format(
        "alpaca-ranked",
        "rankings",
        instructions.is_alpaca_ranked,
        instructions.read_alpaca_ranked,
        instructions.write_alpaca_ranked,
    ),
    Format(
        "alpaca-preference",
        "rankings",
        instructions.is_alpaca_preference,
        instructions.read_alpaca_preference,
        instructions.write_alpaca_preference,
    ),
    Format("dolly", "demonstrations", instructions.is_dolly, instructions.read_dolly, instructions.write_dolly),
    Format("gsm8k", "demonstrations", questions.is_gsm8k, questions.read_gsm8k, questions.write_gsm8k),
    Format("trl-prompt", "prompts", conversations.is_prompt, conversations.read_prompt, conversations.write_prompt),
    Format(
        "trl-prompt-text",
        "prompts",
        conversations.is_prompt_text,
        conversations.read_prompt_text,
        conversations.write_prompt_text,
    ),
    Format(
        "trl-completion",
        "demonstrations",
        conversations.is_completion,
        conversations.read_completion,
        conversations.write_completion,
    ),
    Format(
        "trl-completion-text",
        "demonstrations",
        conversations.is_completion_text,
        conversations.read_completion_text,
        conversations.write_completion_text,
    ),
    Format("trl-preference", "rankings", pairs.is_preference, pairs.read_preference, pairs.write_preference),
    Format(
        "trl-preference-text",
        "rankings",
        pairs.is_preference_text,
        pairs.read_preference_text,
        pairs.write_preference_text,
    ),
    Format("trl-implicit", "rankings", pairs.is_implicit, pairs.read_implicit, pairs.write_implicit),
    Format(
        "trl-implicit-text", "rankings", pairs.is_implicit_text, pairs.read_implicit_text, pairs.write_implicit_text
    ),
    Format("trl-unpaired", "rankings", pairs.is_unpaired, pairs.read_unpaired, pairs.write_unpaired),
    Format(
        "trl-unpaired-text", "rankings", pairs.is_unpaired_text, pairs.read_unpaired_text, pairs.write_unpaired_text
    ),
    Format("hh", "rankings", pairs.is_hh, pairs.read_hh, pairs.write_hh),
    Format("openai-dpo", "rankings", pairs.is_dpo, pairs.read_dpo, pairs.write_dpo),
    Format(
        "openai-comparisons", "rankings", summaries.is_comparison, summaries.read_comparison, summaries.write_comparison
    ),
    Format("ultrafeedback", "rankings", rated.is_rated, rated.read_rated, rated.write_rated),
    Format("oasst", "rankings", trees.is_tree, trees.read_tree, trees.write_tree),
    Format("stackexchange", "rankings", votes.is_votes, votes.read_votes, votes.write_votes),
    Format("argilla", "rankings", argilla.is_nested, argilla.read_nested, argilla.write_nested),
    Format("argilla-flat", "rankings", argilla.is_flat, argilla.read_flat, argilla.write_flat),
    Format("prompts", "prompts", questions.is_asked, questions.read_asked, questions.write_asked_rows),
)
ASKED = LINES[-1]
"""What looks like any prompt with anything beside it, so that only who says so can know it."""
WITHIN = ("trl-prompt", "trl-prompt-text", "gsm8k")
"""What ASKED holds, too, so that prompts with and without an answer are of one format."""
SHEETS = {sheets.WIDE: sheets.write_wide, sheets.LONG: sheets.write_long, sheets.RANKINGS: sheets.write_rankings}
FORMATS = (*(one.name for one in LINES), *SHEETS)
"""Every name that --format takes."""
SAY = "name its format (`palate feedback import --format {}`)"
MOST = 50_000_000
"""Bytes of a file that the studio opens by itself."""


# --- reading ---------------------------------------------------------------------------------------------------------


def read_file(
    path: Path,
    name: str | None = None,
    *,
    answers: Sequence[str] | None = None,
    most: int | None = None,
    advance: Callable[[int], None] = lambda amount: None,
) -> tuple[str, Pile]:
    """(format, the records of a file with what was left out and why): `read_into` an empty pile."""
    pile = Pile(source=path.name)
    return read_into(pile, path, name, answers=answers, most=most, advance=advance), pile


def read_into(
    pile: Pile,
    path: Path,
    name: str | None = None,
    *,
    wanted: Kind | None = None,
    answers: Sequence[str] | None = None,
    most: int | None = None,
    advance: Callable[[int], None] = lambda amount: None,
) -> str:
    """Read a file into a pile; its format is returned.

    name: the format; told from the first line when None, and refused where that could be several. wanted: what the
    file is said to hold, which decides where one of those several holds it. answers: the columns of a CSV with answers.
    most: bytes the file may have. advance: is told of every line of a file of lines. Raises BadInput.
    """
    known(name)
    lines = _as_lines(path, name, wanted, answers, most) if path.suffix == ".csv" else _lines(path, most)
    if name in SHEETS or lines is None:
        return _read_sheet(pile, path, name, answers, most)
    if answers is not None:
        raise BadInput("--answers names the columns of a CSV, and this is none.", path, "Leave it out.")
    form = next((one for one in LINES if one.name == name), None)
    for where, row in lines:
        if name is None:
            form = _told_by(row, where, form, wanted)
        assert form is not None
        pile.rows += 1
        advance(1)
        try:
            form.read(pile, row)
        except Left as reason:
            pile.dropped[str(reason)] += 1
        except ValueError as error:
            mend = f"Mend or delete the line, or {SAY.format('NAME')}."
            raise BadInput(f"not of the format {form.name}: {str(error).rstrip('.')}.", where, mend) from None
    if form is None or not pile.rows:
        raise _no_row(path)
    return form.name


def _lines(path: Path, most: int | None) -> Iterator[tuple[str, Row]]:
    for number, row in rows.rows(path, most):
        yield f"{path}:{number}", row


def known(name: str | None) -> None:
    """Raise BadInput for a format there is not."""
    if name is not None and name not in FORMATS:
        raise BadInput(f"there is no format {name!r}.", "--format", f"Name one of {', '.join(FORMATS)}.")


def _fitting(row: Row, wanted: Kind | None) -> list[Format]:
    """The formats that a row could be of."""
    found = [one for one in LINES if one is not ASKED and one.fits(row)]
    if wanted == "prompts":
        found = [one for one in found if one.name not in WITHIN] or [one for one in (ASKED,) if one.fits(row)]
    if wanted is not None and len(found) > 1:
        # Of a demonstration the first part is a prompt, and whoever wrote it answered no other.
        kinds = (wanted, "demonstrations") if wanted == "prompts" else (wanted,)
        found = [one for one in found if one.kind in kinds] or found
    return found


def _told_by(row: Row, where: str, before: Format | None, wanted: Kind | None) -> Format:
    """The format of a row, which is that of the rows before it. Raises BadInput where it could be several or none."""
    if before not in (None, ASKED) and before.fits(row):  # whatever else it could be: the lines before decide
        return before
    found = _fitting(row, wanted)
    if before is not None and before in found:
        return before
    keys = ", ".join(map(str, row))[:120] or "none"
    if before is not None:
        raise BadInput(
            f"the lines before are of the format {before.name}, this one (keys {keys}) is not.",
            where,
            f"Mend or delete it, or {SAY.format(before.name)}.",
        )
    if not found:
        mend = f"To have it read all the same, {SAY.format('NAME')}, one of {', '.join(FORMATS)}."
        raise BadInput(f"no format has these keys ({keys}).", where, mend)
    if len(found) > 1:
        names = " or ".join(one.name for one in found)
        mend = f"To tell which, {SAY.format(found[0].name)}."
        raise BadInput(f"this could be {names} (keys {keys}), and it is not guessed.", where, mend)
    return found[0]


def _as_lines(
    path: Path, name: str | None, wanted: Kind | None, answers: Sequence[str] | None, most: int | None
) -> Iterator[tuple[str, Row]] | None:
    """The rows of a CSV as lines with its columns as keys, where that is what it holds: examples to follow (any row
    with one answer is one), prompts without answers to choose from, an instruction that is asked with its input. None
    where it is prompts with answers."""
    if answers is not None or name in SHEETS:
        return None
    rows.refuse_other_files(path, most)
    records = _records(path, most)
    where, columns = next(records, ("", []))
    keys = {column: column.strip().lower() for column in columns}
    if not columns or len(set(keys.values())) < len(columns):
        return None  # which is told where sheets are read
    if name is None and not _are_lines(dict.fromkeys(keys.values(), ""), wanted):
        if wanted != "demonstrations":
            return None
        sheet = sheets.layout(columns, where)
        if sheet.kind != sheets.LONG or sheet.ranks:
            return None
        keys |= {sheet.prompt: "prompt", sheet.answers[0]: "completion"}
    return (
        (where, {keys[column]: cell for column, cell in cells.items()}) for where, cells in _cells(records, columns)
    )


def _are_lines(like: Row, wanted: Kind | None) -> bool:
    """Whether the columns are the keys of a format of lines. A question and its answer may also be an answer to rank,
    as long as nobody said what the file holds."""
    if wanted == "prompts":
        return not any(sheets.ANSWER.match(key) for key in like)
    found = any(one.kind == "demonstrations" and one.fits(like) for one in LINES)
    return found and (wanted == "demonstrations" or (wanted is None and sheets.asks_in_two(like)))


def _read_sheet(pile: Pile, path: Path, name: str | None, answers: Sequence[str] | None, most: int | None) -> str:
    rows.refuse_other_files(path, most)
    records = _records(path, most)
    _, columns = next(records, ("", []))
    if not columns:
        raise BadInput("there is nothing in this file.", path, "Its first line names the columns.")
    sheet = sheets.layout(columns, f"{path}:1", answers)
    if name not in (None, sheet.kind):
        raise BadInput(f"its columns are those of {sheet.kind}, not of {name}.", path, f"Name {sheet.kind}.")
    sheets.read_rows(pile, sheet, _cells(records, columns))
    if not pile.rows:
        raise _no_row(path)
    return sheet.kind


def _no_row(path: Path) -> BadInput:
    return BadInput("there is no row below the names of the columns.", path, "Get the file again.")


def _records(path: Path, most: int | None) -> Iterator[tuple[str, list[str]]]:
    """(where it begins, cells) of every line that is not blank."""
    csv.field_size_limit(rows.LONGEST)
    number = 1

    def lines() -> Iterator[str]:
        for at, line in enumerate(rows.byte_lines(path, most), start=1):
            try:
                yield (line.removeprefix(codecs.BOM_UTF8) if at == 1 else line).decode()
            except UnicodeDecodeError:
                raise BadInput("this line is not UTF-8.", f"{path}:{at}", "Save it as UTF-8.") from None

    reader = csv.reader(lines(), strict=True)
    try:
        for cells in reader:
            if cells:
                yield f"{path}:{number}", [sheets.plain(cell) for cell in cells]
            number = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"unreadable CSV ({error}).", f"{path}:{number}", "Save the sheet as CSV again.") from None


def _cells(records: Iterator[tuple[str, list[str]]], columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for where, cells in records:
        if len(cells) != len(columns):
            raise BadInput(f"{len(cells)} cells, but there are {len(columns)} columns.", where, "Mend the row.")
        yield where, dict(zip(columns, cells))


# --- writing ---------------------------------------------------------------------------------------------------------


def lines_of(pile: Pile, name: str) -> Iterator[str]:
    """The lines of a file, each with its end. What the format cannot hold is counted in `pile.dropped`."""
    known(name)
    if name in SHEETS:
        yield from sheets.write_cells(SHEETS[name](pile))
        return
    for row in rows_of(pile, name):
        yield json.dumps(row, ensure_ascii=False) + "\n"


def rows_of(pile: Pile, name: str) -> Iterator[Row]:
    """The rows of a file of lines."""
    form = next(one for one in LINES if one.name == name)
    yield from form.write(pile)


# --- for the studio --------------------------------------------------------------------------------------------------


def read_items(
    path: Path, answers: Sequence[str] | None = None
) -> tuple[list[Prompt], list[Response], list[Judgement]]:
    """Prompts with two to nine different answers each, the answers, and the judgements where the file has some: CSV or
    lines of any format. Ids depend on the file's name and on what it says alone.

    What cannot be ranked is counted by reason, and told. Raises BadInput, also for more than MOST bytes.
    """
    name, pile = read_file(path, answers=answers, most=MOST)
    answered = asked.answers(pile.responses.values())
    fit: dict[str, Prompt] = {}
    for prompt in pile.prompts.values():
        count = len(answered.get(prompt.id, ()))
        if count < FEWEST:
            pile.dropped["fewer than two different answers"] += 1
        elif count > LARGEST:
            pile.dropped["more than nine answers"] += 1
        else:
            fit[prompt.id] = prompt
    if not fit:
        reasons = "; ".join(f"{reason} ({n})" for reason, n in pile.dropped.most_common(3)) or f"it is {name}"
        raise BadInput(
            f"no row has a prompt with two answers to compare: {reasons}.", path, "Palate shows two to nine answers."
        )
    for reason, count in pile.dropped.most_common():
        metrics.say(f"{path.name}: left out: {reason} ({count:,})")
    responses = [response for response in pile.responses.values() if response.prompt_id in fit]
    return list(fit.values()), responses, [j for j in pile.judgements.values() if j.prompt_id in fit]


FEWEST, LARGEST = 2, 9
"""How many answers a person puts in order."""

"""Tables of comma-separated values, as spreadsheets make them: a row a prompt, a row an answer, or a row a ranking."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from palate.errors import BadInput
from palate.feedback.exchange.conversations import one_question
from palate.feedback.exchange.pile import Extra, Pile, details, left_of, remembered, who
from palate.feedback.exchange.turns import Left, competition
from palate.records import Message, Prompt, Response

WIDE, LONG, RANKINGS = "csv", "csv-long", "csv-rankings"
PROMPTS = ("prompt", "question", "instruction")
ANSWER = re.compile(r"(answer|response|completion|output)[ _-]?(\d{1,2}|[a-z])$")
ONE_ANSWER = ("response", "answer", "completion", "output")
Cells = dict[str, str]


@dataclass(frozen=True)
class Sheet:
    """Which column holds what. A name that is empty is of no column."""

    columns: tuple[str, ...]
    prompt: str
    answers: tuple[str, ...]
    ranks: tuple[str, ...] = ()
    annotator: str = ""
    model: str = ""

    @property
    def used(self) -> set[str]:
        """The columns that have a field of ours."""
        return {self.prompt, *self.answers, *self.ranks, self.annotator, self.model}

    @property
    def kind(self) -> str:
        """The format it is of."""
        if len(self.answers) == 1:
            return LONG
        return RANKINGS if self.ranks else WIDE


# --- cells -----------------------------------------------------------------------------------------------------------

FORMULA = "=+-@\t\r\n＝＋－＠"
"""A cell that begins with one of these is a formula to a spreadsheet, which could send the sheet elsewhere."""
_OURS = re.compile(f"'*[{re.escape(FORMULA)}]")
_THEIRS = re.compile(f"'+[{re.escape(FORMULA)}]")


def safe(cell: str) -> str:
    """A cell that no spreadsheet computes: ' before what looks like a formula, and one more before what has it already.

    >>> safe("=1+1"), safe("'=1+1"), safe("1+1")
    ("'=1+1", "''=1+1", '1+1')
    """
    return f"'{cell}" if _OURS.match(cell) else cell


def plain(cell: str) -> str:
    """What `safe` was given."""
    return cell[1:] if _THEIRS.match(cell) else cell


# --- which column is what --------------------------------------------------------------------------------------------


NAME_THEM = (
    "Call them answer_1 and answer_2 (or name them: --answers COL,COL of `palate studio` and `palate feedback import`)."
)


def layout(columns: Sequence[str], where: str, answers: Sequence[str] | None = None) -> Sheet:
    """The columns by their names. Raises BadInput where names do not tell: nothing is guessed."""
    lower = {name.strip().lower(): name for name in columns}
    if len(lower) < len(columns):
        raise BadInput("two columns have the same name.", where, "Give each its own.")
    if len(columns) == 1 and re.search(r"[;\t]", columns[0]):
        raise BadInput("its columns are not parted by commas.", where, "Save it as comma-separated values (CSV).")
    asked = [lower[name] for name in PROMPTS if name in lower]
    if len(asked) != 1:
        told = "no column is" if not asked else "several columns are"
        raise BadInput(f"{told} named {', '.join(PROMPTS)}.", where, "Name the one with what is asked prompt.")
    if answers is not None:
        if missing := [name for name in answers if name not in columns]:
            raise BadInput(f"there is no column {missing[0]!r}.", where, f"It has {', '.join(columns)}.")
        wide = list(answers)
    else:
        wide = [name for name in columns if ANSWER.match(name.strip().lower())]
        if len({_stem(name) for name in wide}) > 1:
            raise BadInput("columns of answers have different names.", where, NAME_THEM)
    single = [lower[name] for name in ONE_ANSWER if name in lower and answers is None]
    if len(wide) + len(single) == 0 or (wide and single) or len(single) > 1 or len(wide) == 1:
        raise BadInput(
            f"which columns hold answers? They are not called answer_1, answer_2..., nor is one called response. It "
            f"has {', '.join(columns)[:200]}.",
            where,
            NAME_THEM,
        )
    sheet = Sheet(tuple(columns), asked[0], tuple(wide or single), model=lower.get("model", "") if single else "")
    if single:
        ranks = [lower["rank"]] if "rank" in lower else []
    else:
        ranks = [found for name in wide if (found := _rank_column(name, lower))]
    if ranks and len(ranks) < len(sheet.answers):
        raise BadInput("some answers have a column of ranks and some have none.", where, "Add rank_1, rank_2...")
    ranked = bool(ranks) or bool(single)
    return dataclasses.replace(sheet, ranks=tuple(ranks), annotator=lower.get("annotator", "") if ranked else "")


def asks_in_two(columns: Iterable[str]) -> bool:
    """Whether what is asked stands in two columns, as Alpaca and Dolly have it."""
    return "instruction" in columns and not {"input", "context"}.isdisjoint(columns)


def _stem(name: str) -> str:
    found = ANSWER.match(name.strip().lower())
    return found[1] if found else ""


def _rank_column(answer: str, lower: Mapping[str, str]) -> str | None:
    told = answer.strip().lower()
    found = ANSWER.match(told)
    names = [told, *([found[2]] if found else [])]
    return next((lower[f"rank{gap}{name}"] for name in names for gap in "_ -" if f"rank{gap}{name}" in lower), None)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_rows(pile: Pile, sheet: Sheet, rows: Iterator[tuple[str, Cells]]) -> None:
    """Every row of a sheet, each with where it stands. Raises BadInput."""
    if sheet.kind == LONG:
        for _, block in groupby(rows, key=lambda row: (row[1][sheet.prompt], row[1].get(sheet.annotator, ""))):
            some = list(block)
            pile.rows += len(some)
            _guarded(pile, sheet, some[0][0], [cells for _, cells in some])
        return
    for where, cells in rows:
        pile.rows += 1
        _guarded(pile, sheet, where, [cells])


def _guarded(pile: Pile, sheet: Sheet, where: str, some: list[Cells]) -> None:
    try:
        if not some[0][sheet.prompt].strip():
            raise Left("an empty prompt")
        if sheet.kind == LONG:
            _read_block(pile, sheet, some)
        else:
            _read_row(pile, sheet, some[0])
    except Left as reason:
        pile.dropped[str(reason)] += len(some)
    except ValueError as error:
        raise BadInput(f"{error}.", where, "Mend or delete the row.") from None


def _read_row(pile: Pile, sheet: Sheet, cells: Cells) -> None:
    texts = [(column, cells[column]) for column in sheet.answers if cells[column].strip()]
    if len({text for _, text in texts}) < 2:
        raise Left("fewer than two different answers")
    name, others = sheet.kind, {column: cell for column, cell in cells.items() if column not in sheet.used}
    ranks = {column: _rank(cells[rank]) for column, rank in zip(sheet.answers, sheet.ranks)}
    if sheet.ranks and not any(ranks.values()):
        raise Left("a row without ranks")
    prompt = _ask(pile, sheet, cells[sheet.prompt], {} if sheet.ranks else others, again=not sheet.ranks)
    answers = {
        column: pile.answer(prompt, text, remembered(name, column=column), again=not sheet.ranks)
        for column, text in texts
    }
    if sheet.ranks:
        ordered = [(answers[column], rank) for column, rank in ranks.items() if rank is not None and column in answers]
        blank = {column: cells[column] for column in sheet.answers if column not in answers and cells[column]}
        _judge(pile, sheet, prompt, ordered, list(answers.values()), cells, others, blank=blank)


def _read_block(pile: Pile, sheet: Sheet, some: list[Cells]) -> None:
    (column,) = sheet.answers
    ranks = [_rank(cells[sheet.ranks[0]]) if sheet.ranks else None for cells in some]
    ranked = any(rank is not None for rank in ranks)
    if ranked and len({cells[column] for cells in some}) < len(some):
        raise Left("an answer that one ranking has twice")
    if ranked and len(some) < 2:
        raise Left("fewer than two different answers")
    prompt = _ask(pile, sheet, some[0][sheet.prompt], {}, again=False)
    others = [{name: cell for name, cell in cells.items() if name not in sheet.used} for cells in some]
    answers = []
    for cells, beside in zip(some, others):
        model = cells.get(sheet.model, "")
        # What stands beside an answer in a ranking is this person's and not the answer's.
        told = {} if ranked else {**beside, **({sheet.annotator: cells[sheet.annotator]} if sheet.annotator else {})}
        extra = remembered(LONG, told)
        origin: Any = "model" if model else "human"
        answers.append(pile.answer(prompt, cells[column], extra, model=model, origin=origin, again=not ranked))
    if ranked:
        ordered = [(answer, rank) for answer, rank in zip(answers, ranks) if rank is not None]
        beside_each = {answer.id: beside for answer, beside in zip(answers, others) if any(beside.values())}
        _judge(pile, sheet, prompt, ordered, answers, some[0], {}, beside=beside_each)


def _ask(pile: Pile, sheet: Sheet, text: str, left: Extra, *, again: bool) -> Prompt:
    told = {key: value for key, value in dataclasses.asdict(sheet).items() if value}
    told = {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}
    return pile.ask((Message(role="user", content=text),), remembered(sheet.kind, left, sheet=told), again=again)


def _judge(
    pile: Pile,
    sheet: Sheet,
    prompt: Prompt,
    ordered: list[tuple[Response, int]],
    answers: list[Response],
    cells: Cells,
    left: Extra,
    **told: Any,
) -> None:
    ranks = competition([rank for _, rank in ordered])
    given = [rank for _, rank in ordered]
    ids = [answer.id for answer in answers]
    odd = {answer.id: rank for answer, rank in ordered} if given != ranks else None
    extra = remembered(sheet.kind, left, always=True, answers=ids, ranks=odd, **told)
    ranked = [(answer, rank) for (answer, _), rank in zip(ordered, ranks)]
    pile.judge(prompt, ranked, extra, annotator=cells.get(sheet.annotator, ""))


def _rank(cell: str) -> int | None:
    if not cell.strip():
        return None
    if not re.fullmatch(r"[1-9]\d{0,3}", cell):
        raise ValueError(f"the rank {cell[:20]!r} is no whole number from 1 on")
    return int(cell)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_wide(pile: Pile) -> Iterator[list[str]]:
    """The header, then a row a prompt with its answers. Judgements are in the other two formats."""
    prompts = [prompt for prompt in _askable(pile) if len({a.text for a in pile.answers(prompt.id)}) > 1]
    most = max((len(pile.answers(prompt.id)) for prompt in prompts), default=2)
    sheet = _sheet(pile, WIDE, most)
    rows = []
    for prompt in prompts:
        placed = _placed(pile.answers(prompt.id), sheet, WIDE)
        rows.append({**left_of(prompt, WIDE), sheet.prompt: prompt.messages[0].content, **placed})
    yield from _table(sheet, rows)


def write_rankings(pile: Pile) -> Iterator[list[str]]:
    """The header, then a row a judgement."""
    askable = {prompt.id for prompt in _askable(pile)}
    judgements = [judgement for judgement in pile.judgements.values() if judgement.prompt_id in askable]
    most = max((len(pile.shown(judgement, RANKINGS)) for judgement in judgements), default=2)
    sheet, rows = _sheet(pile, RANKINGS, most), []
    for judgement in judgements:
        answers = pile.shown(judgement, RANKINGS)
        placed = _placed(answers, sheet, RANKINGS)
        told = details(judgement, RANKINGS)
        ranks = told.get("ranks", judgement.ranks)
        by_column = _columns(answers, sheet, RANKINGS)
        ranked = {
            rank: str(ranks[by_column[column]])
            for column, rank in zip(sheet.answers, sheet.ranks)
            if column in by_column and by_column[column] in ranks
        }
        rows.append(
            {
                **left_of(judgement, RANKINGS),
                **told.get("blank", {}),
                **placed,
                **ranked,
                sheet.prompt: pile.prompts[judgement.prompt_id].messages[0].content,
                sheet.annotator: who(judgement),
            }
        )
    yield from _table(sheet, rows)


def write_long(pile: Pile) -> Iterator[list[str]]:
    """The header, then a row an answer of every judgement, then a row an answer that is in none."""
    askable = {prompt.id for prompt in _askable(pile)}
    sheet, rows, seen = _sheet(pile, LONG, 1), [], set()
    (column,) = sheet.answers
    for judgement in pile.judgements.values():
        if judgement.prompt_id not in askable:
            continue
        told = details(judgement, LONG)
        ranks, beside = told.get("ranks", judgement.ranks), told.get("beside", {})
        for answer in pile.shown(judgement, LONG):
            seen.add(answer.id)
            rank = str(ranks[answer.id]) if answer.id in ranks else ""
            given = {(*sheet.ranks, "rank")[0]: rank, sheet.annotator: who(judgement)}
            rows.append({**beside.get(answer.id, {}), **given, **_answer_cells(pile, sheet, column, answer)})
    for answer in pile.responses.values():
        if answer.id not in seen and answer.prompt_id in askable:
            rows.append({**left_of(answer, LONG), **_answer_cells(pile, sheet, column, answer)})
    yield from _table(sheet, rows)


def _answer_cells(pile: Pile, sheet: Sheet, column: str, answer: Response) -> Cells:
    asked = pile.prompts[answer.prompt_id].messages[0].content
    return {sheet.prompt: asked, column: answer.text, sheet.model: answer.model}


def _askable(pile: Pile) -> list[Prompt]:
    found = [prompt for prompt in pile.prompts.values() if one_question(prompt.messages)]
    if len(found) < len(pile.prompts):
        pile.dropped["a conversation of more than one question"] += len(pile.prompts) - len(found)
    return found


def _sheet(pile: Pile, kind: str, most: int) -> Sheet:
    """The columns of the files that were read, or the usual ones, with room for `most` answers."""
    told = [details(prompt, kind)["sheet"] for prompt in pile.prompts.values() if "sheet" in details(prompt, kind)]
    judged = bool(pile.judgements)
    if told:
        first: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in told[0].items()}
        sheet = Sheet(**first)
        others = {column: None for one in told[1:] for column in one["columns"] if column not in sheet.columns}
        sheet = dataclasses.replace(sheet, columns=(*sheet.columns, *others))
    elif kind == LONG:
        sheet = Sheet(("prompt", "response", "model"), "prompt", ("response",), model="model")
    else:
        names = tuple(f"answer_{n}" for n in range(1, most + 1))
        sheet = Sheet(("prompt", *names), "prompt", names)
    if kind == LONG and judged and not sheet.ranks:
        sheet = dataclasses.replace(sheet, columns=(*sheet.columns, "rank"), ranks=("rank",))
    number = 1
    while kind != LONG and len(sheet.answers) < most:
        name, number = f"answer_{number}", number + 1
        if name not in sheet.columns:
            sheet = dataclasses.replace(sheet, columns=(*sheet.columns, name), answers=(*sheet.answers, name))
    if kind == RANKINGS and len(sheet.ranks) < len(sheet.answers):
        more = tuple(f"rank_{_suffix(name)}" for name in sheet.answers[len(sheet.ranks) :])
        sheet = dataclasses.replace(sheet, columns=(*sheet.columns, *more), ranks=(*sheet.ranks, *more))
    people = any(who(judgement) for judgement in pile.judgements.values())
    if kind != WIDE and people and not sheet.annotator:
        sheet = dataclasses.replace(sheet, columns=(*sheet.columns, "annotator"), annotator="annotator")
    return sheet


def _suffix(name: str) -> str:
    found = ANSWER.match(name.strip().lower())
    return found[2] if found else name


def _columns(answers: Sequence[Response], sheet: Sheet, kind: str) -> dict[str, str]:
    """Column -> id of the answer in it: the one it was read from, or the next that is free."""
    found: dict[str, str] = {}
    homeless = []
    for answer in answers:
        column = details(answer, kind).get("column")
        if column in sheet.answers and column not in found:
            found[column] = answer.id
        else:
            homeless.append(answer)
    free = [column for column in sheet.answers if column not in found]
    return found | {column: answer.id for column, answer in zip(free, homeless)}


def _placed(answers: Sequence[Response], sheet: Sheet, kind: str) -> Cells:
    texts = {answer.id: answer.text for answer in answers}
    return {column: texts[id_] for column, id_ in _columns(answers, sheet, kind).items()}


def _table(sheet: Sheet, rows: list[Cells]) -> Iterator[list[str]]:
    if not rows:
        return
    yield list(sheet.columns)
    for row in rows:
        yield [row.get(column, "") for column in sheet.columns]


def write_cells(rows: Iterator[list[str]]) -> Iterator[str]:
    """Lines of the file, every cell safe."""

    class Line:
        """What csv writes to; it has one line at a time."""

        text = ""

        def write(self, text: str) -> None:
            self.text = text

    line = Line()
    writer = csv.writer(line)
    for row in rows:
        writer.writerow([safe(cell) for cell in row])
        yield line.text

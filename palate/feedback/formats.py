"""Foreign files of demonstrations and rankings -> canonical records. The format is told by the keys of the first line.

    demonstrations   messages; conversations (from/value); Alpaca (instruction, input, output);
                     Dolly (instruction, context, response, category); prompt/completion;
                     GSM8K (question, answer)
    prompts          prompt, messages, instruction or question, with the right answer beside it (answer) where one is
                     known
    comparisons      HH-RLHF (chosen, rejected transcripts); TRL preference (prompt, chosen, rejected);
                     Open-Assistant message trees (replies with rank); Alpaca with a list of outputs, best first
                     (LLaMA-Factory); questions with answers and their votes (title, body, answers with text and
                     score); K-way (prompt, responses, ranks): our own

Field names are those the formats' authors document. What has no field here is kept in `extra`.
"""

from __future__ import annotations

import codecs
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.errors import BadInput
from palate.feedback.turns import (
    ROLES,
    Left,
    competition,
    history_of,
    messages_of,
    outputs_of,
    parting,
    rank_of,
    read_transcript,
    read_turns,
    replies_of,
    text_of,
    votes_of,
)
from palate.records import (
    Conversation,
    Demonstration,
    Judgement,
    Message,
    Prompt,
    Response,
    conversation,
    json_lines,
    json_value,
    stable_id,
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One prompt, its responses, and who preferred what."""

    prompt: Prompt
    responses: tuple[Response, ...]
    judgements: tuple[Judgement, ...]


def fingerprint(path: Path) -> str:
    """Name, size and time of a file: enough to see that it changed without reading it. Raises BadInput."""
    try:
        told = path.stat()
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot be read ({reason}).", path, "Check the path in the recipe.") from None
    return f"{told.st_size} {told.st_mtime_ns}"


def family_of(messages: Conversation) -> str:
    """Family of a prompt from a file: its first user turn, case and spacing evened out."""
    first = next((m.content for m in messages if m.role == "user"), "")
    return stable_id("family", " ".join(first.lower().split()))


# --- reading lines ---------------------------------------------------------------------------------------------------


LONGEST = 20_000_000
"""Bytes of a line. A tree of a thousand messages is 1 MB."""
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
HEAD = 4_096  # bytes in which an array must begin


def rows(path: Path, most: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a .jsonl or .json file (also .gz, .xz) or a .parquet table.

    most: bytes that a file may have once unpacked. Raises BadInput.
    """
    if path.suffix == ".parquet":
        refuse_other_files(path, most)
        yield from _table_rows(path)
        return
    refuse_other_files(path, None)
    number = 0
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            start = file.read(HEAD).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
            file.seek(0)
            one_array = start == b"[" and ".json" in path.suffixes
            lines = _array(_whole(file, path, most), path) if one_array else json_lines(_lines(file, path, most), path)
            for number, value in lines:
                yield number, value
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise BadInput(f"cannot be read on ({error}).", f"{path}:{number + 1}", "Get the file again.") from None
    if not number:
        raise BadInput("there is nothing in this file.", path, "Get the file again, or take it out of the recipe.")


def byte_lines(path: Path, most: int | None = None) -> Iterator[bytes]:
    """The lines of a file, unpacked (.gz, .xz). Raises BadInput where it cannot be read on, and where a line has more
    than LONGEST bytes or the whole more than `most`: a small packed file can be a very large one."""
    refuse_other_files(path, None)
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            yield from _lines(file, path, most)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise BadInput(f"cannot be read on ({error}).", path, "Get the file again.") from None


def _lines(file: Any, path: Path, most: int | None) -> Iterator[bytes]:
    number, size = 0, 0
    while line := file.readline(LONGEST + 1):
        number, size = number + 1, size + len(line)
        if len(line) > LONGEST:
            raise BadInput(f"a line has more than {LONGEST:,} bytes.", f"{path}:{number}", "Part or delete it.")
        if most is not None and size > most:
            raise _too_large(path, most)
        yield line


def _whole(file: Any, path: Path, most: int | None) -> bytes:
    raw = bytes(file.read() if most is None else file.read(most + 1))
    if most is not None and len(raw) > most:
        raise _too_large(path, most)
    return raw


def _too_large(path: Path, most: int) -> BadInput:
    return BadInput(f"it has more than {most:,} bytes.", path, "Part it into several files.")


def refuse_other_files(path: Path, most: int | None) -> None:
    """Raise BadInput for what is no file, an archive, or more than `most` bytes."""
    if path.is_dir():
        raise BadInput("this is a folder.", path, "Name a file.")
    try:
        with path.open("rb") as file:
            start = file.read(4)
        size = path.stat().st_size
    except FileNotFoundError:
        raise BadInput("there is no such file.", path, "Check the path.") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read ({error}).", path, "Check the path.") from None
    if start == b"PK\x03\x04":
        raise BadInput("this is a zip archive or a spreadsheet.", path, "Unpack it, or save the sheet as CSV.")
    if most is not None and size > most:
        raise _too_large(path, most)


def _array(raw: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, value in enumerate(json_value(raw, path), start=1):
        if not isinstance(value, dict):
            raise BadInput(f"expected an object, found {type(value).__name__}.", f"{path}:{number}", "Delete it.")
        yield number, value


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as table:
            for group in table.iter_batches(1000):
                for row in group.to_pylist():
                    number += 1
                    # Times, decimals and bytes become text, as a record can hold them.
                    yield number, json_value(json.dumps(row, default=str).encode(), f"{path}:{number}")
    except FileNotFoundError:
        raise BadInput("there is no such file.", path, "Check the path.") from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise BadInput(
            f"unreadable Parquet ({str(error)[:80]}).", f"{path}:{number + 1}", "Get the file again."
        ) from None
    if not number:
        raise BadInput("there is nothing in this file.", path, "Get the file again, or take it out of the recipe.")


# --- demonstrations --------------------------------------------------------------------------------------------------


def read_demonstrations(path: Path) -> Iterator[Demonstration]:
    """The demonstrations of a file. Raises BadInput with file and line."""
    for number, row in rows(path):
        try:
            messages, used = _conversation(row)
            if messages[-1].role != "assistant":
                raise ValueError("the last message is not the assistant's")
            yield Demonstration(
                id=stable_id("demonstration", *(f"{m.role}\x1f{m.content}" for m in messages)),
                messages=messages,
                family=family_of(messages),
                skill=str(row.get("category") or row.get("skill") or ""),
                source=path.name,
                extra={k: v for k, v in row.items() if k not in used} | _right(row),
            )
        except ValueError as error:
            raise BadInput(f"not a demonstration: {str(error).rstrip('.')}.", f"{path}:{number}", _MEND) from None


_MEND = "Expected messages, Alpaca or Dolly columns; mend or delete the line."


def _conversation(row: Row) -> tuple[Conversation, set[str]]:
    """(the conversation in a row, the keys it was made from)."""
    if "messages" in row:
        return _turns(row["messages"], "role", "content"), {"messages"}
    if "conversations" in row:
        return _turns(row["conversations"], "from", "value"), {"conversations"}
    if "instruction" in row:
        answer = "response" if "response" in row else "output"
        beside = next((text_of(row, key) for key in ("context", "input") if row.get(key)), "")
        question = f"{text_of(row, 'instruction')}\n\n{beside}".strip()
        used = {"instruction", "context", "input", answer, "category"}
        return _pair(question, text_of(row, answer)), used
    if "prompt" in row and "completion" in row:
        if isinstance(row["prompt"], str):
            return _pair(row["prompt"], text_of(row, "completion")), {"prompt", "completion"}
        before, after = (_turns(row[key], "role", "content") for key in ("prompt", "completion"))
        return before + after, {"prompt", "completion"}
    if "question" in row and "answer" in row:
        return _pair(text_of(row, "question"), text_of(row, "answer")), {"question", "answer"}
    raise ValueError(f"keys {', '.join(sorted(row))}")


def _right(row: Row) -> dict[str, Any]:
    """{"answer": the right answer} of a row that has one. Beside a question it may be a whole solution, at whose end it
    follows "####" (GSM8K; Cobbe et al. 2021)."""
    answer = row.get("answer")
    if answer is None:
        return {}
    return {"answer": answer.rpartition("####")[2].strip() if "question" in row and isinstance(answer, str) else answer}


def _turns(turns: Any, role: str, content: str) -> Conversation:
    return messages_of(read_turns(turns, role, content))


def _pair(question: str, answer: str) -> Conversation:
    if not question.strip() or not answer.strip():
        raise ValueError("the question or the answer is empty")
    return (Message(role="user", content=question), Message(role="assistant", content=answer))


def read_prompts(path: Path) -> Iterator[Prompt]:
    """The prompts of a file, each with its prompt (text or messages), messages, instruction or question; an assistant's
    last turn is left off. All other keys are in `extra`; "answer" is the right answer."""
    for number, row in rows(path):
        try:
            key = next((k for k in ("prompt", "messages", "question") if k in row), "instruction")
            if key == "messages" or (key == "prompt" and not isinstance(row[key], str)):
                messages = _turns(row[key], "role", "content")
            else:
                messages = (Message(role="user", content=text_of(row, key)),)
            if messages[-1].role == "assistant":
                messages = messages[:-1]
            skill = str(row.get("category") or row.get("skill") or "")
            extra = {k: v for k, v in row.items() if k not in (key, "category", "skill")} | _right(row)
            yield make_prompt(messages, path.name, skill=skill, extra=extra)
        except ValueError as error:
            told = str(error).rstrip(".")
            raise BadInput(
                f"not a prompt: {told}.", f"{path}:{number}", "Expected a prompt, messages, instruction or question."
            ) from None


def make_prompt(messages: Conversation, source: str, *, skill: str = "", extra: Row | None = None) -> Prompt:
    """A prompt record with an id made from its words."""
    return Prompt(
        id=stable_id("prompt", *(f"{m.role}\x1f{m.content}" for m in messages)),
        messages=messages,
        family=family_of(messages),
        skill=skill,
        source=source,
        extra=dict(extra or {}),
    )


# --- comparisons -----------------------------------------------------------------------------------------------------


def read_comparisons(path: Path) -> Iterator[Comparison]:
    """The ranked answers of a file. Raises BadInput with file and line."""
    for number, row in rows(path):
        where = f"{path}:{number}"
        try:
            yield from _comparisons(row, path.name, where)
        except ValueError as error:
            raise BadInput(
                f"not a comparison: {str(error).rstrip('.')}.",
                where,
                "Expected chosen and rejected, an Open-Assistant tree, an instruction with a list of outputs, answers "
                "with scores, or prompt, responses and ranks.",
            ) from None


def _comparisons(row: Row, source: str, where: str) -> Iterator[Comparison]:
    if "responses" in row:
        yield k_way(row, source, where)
    elif "chosen" in row and "rejected" in row:
        prompt, chosen, rejected = _chosen_rejected(row)
        if chosen.strip() != rejected.strip():  # a pair of equal answers says nothing
            yield _ranked(prompt, [(chosen, 1), (rejected, 2)], source, dict(_extra(row)))
    elif "instruction" in row:
        yield from _best_first(row, source)
    elif "answers" in row:
        yield from _voted(row, source)
    elif "replies" in row or "prompt" in row:
        tree = row["prompt"] if isinstance(row.get("prompt"), Mapping) else row
        yield from _tree(tree, (), source)
    else:
        raise ValueError(f"keys {', '.join(sorted(row))}")


def _extra(row: Row) -> Iterator[tuple[str, Any]]:
    return ((k, v) for k, v in row.items() if k not in ("prompt", "chosen", "rejected"))


def transcript(text: str) -> Conversation:
    """An HH-RLHF transcript ("\\n\\nHuman: ...\\n\\nAssistant: ...") as messages."""
    return messages_of(read_transcript(text))


def _chosen_rejected(row: Row) -> tuple[Conversation, str, str]:
    """What is asked, the better answer and the worse one; both are empty where nobody compared two answers."""
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" in row:
        prompt = row["prompt"]
        start = (
            (Message(role="user", content=prompt),) if isinstance(prompt, str) else _turns(prompt, "role", "content")
        )
        if isinstance(chosen, str):
            return start, chosen, text_of(row, "rejected")
        said = _turns(chosen, "role", "content"), _turns(rejected, "role", "content")
        return start, said[0][-1].content, said[1][-1].content
    texts = (chosen, text_of(row, "rejected")) if isinstance(chosen, str) else None
    liked, other = (read_turns(chosen), read_turns(rejected)) if texts is None else map(read_transcript, texts)
    # A few HH-RLHF pairs part before the last turn: what is compared is the first answer in which they differ.
    try:
        alike = parting(liked, other)
    except Left:
        return messages_of(liked[:1]), "", ""
    return messages_of(liked[:alike]), liked[alike].message.content, other[alike].message.content


def _ranked(messages: Conversation, answers: list[tuple[str, int]], source: str, extra: Row) -> Comparison:
    prompt = make_prompt(messages, source, extra=extra)
    responses = tuple(
        Response(id=stable_id("response", prompt.id, text), prompt_id=prompt.id, text=text, origin="human")
        for text, _ in answers
    )
    return Comparison(
        prompt, responses, (_judged(prompt, responses, [r for _, r in answers], f"file:{source}", source),)
    )


def _judged(
    prompt: Prompt, responses: Sequence[Response], ranks: Sequence[int], annotator: str, source: str
) -> Judgement:
    """Its id is made from who ranked what how: two people who rank the same answers are two judgements."""
    return Judgement(
        id=stable_id("judgement", source, prompt.id, annotator, *(f"{r.id} {n}" for r, n in zip(responses, ranks))),
        prompt_id=prompt.id,
        annotator=annotator,
        ranks={r.id: rank for r, rank in zip(responses, ranks, strict=True)},
        source=source,
    )


def _tree(node: Row, before: Conversation, source: str) -> Iterator[Comparison]:
    """Every prompter turn of an Open-Assistant tree whose replies are ranked (rank 0 is best)."""
    told = text_of(node, "role")
    role = ROLES.get(told, told)
    here = (*before, Message(role=role, content=text_of(node, "text")))  # type: ignore[arg-type]
    replies = replies_of(node)
    ranked = [(text_of(reply, "text"), rank) for reply in replies if (rank := rank_of(reply)) is not None]
    if role == "user" and len({text for text, _ in ranked}) > 1:
        distinct = {text: rank for text, rank in reversed(ranked)}
        answers = list(zip(distinct, competition(list(distinct.values()))))
        yield _ranked(here, answers, source, {})
    for reply in replies:
        yield from _tree(reply, here, source)


def _best_first(row: Row, source: str) -> Iterator[Comparison]:
    """{"instruction", "input", "output": [best, ..., worst], "history": [[question, answer], ...]}."""
    outputs, history = outputs_of(row), history_of(row)
    beside = text_of(row, "input") if row.get("input") else ""
    turns = [*(text for turn in history for text in turn), f"{text_of(row, 'instruction')}\n\n{beside}".strip()]
    answers = [(text, rank) for rank, text in enumerate(dict.fromkeys(outputs), start=1)]
    if len(answers) > 1:
        used = ("instruction", "input", "output", "history")
        yield _ranked(conversation(*turns), answers, source, {k: v for k, v in row.items() if k not in used})


def _voted(row: Row, source: str) -> Iterator[Comparison]:
    """{"title", "body", "answers": [{"text", "score"}, ...]}: more votes rank higher, as many rank alike."""
    votes: dict[str, int] = {}
    for text, score in votes_of(row):
        votes.setdefault(text, score)
    question = "\n\n".join(text_of(row, key) for key in ("title", "body") if row.get(key))
    if len(votes) > 1:
        ranked = list(zip(votes, competition([-score for score in votes.values()])))
        left = {k: v for k, v in row.items() if k not in ("title", "body")}
        yield _ranked((Message(role="user", content=question),), ranked, source, left)


def k_way(row: Row, source: str, where: str) -> Comparison:
    """{"prompt": text or record, "responses": [text or record, ...], "ranks": [1, 2, ...] or "judgements": [...]}.

    Raises ValueError, and BadInput with `where` when a judgement names an answer that is not there.
    """
    for key in ("responses", "judgements", "ranks"):
        if key in row and not isinstance(row[key], list):
            raise ValueError(f"{key} is no list")
    told = row.get("prompt")
    if isinstance(told, str):
        prompt = make_prompt((Message(role="user", content=told),), source)
    else:
        prompt = Prompt.from_json(told or {})
    responses = tuple(
        Response(id=stable_id("response", prompt.id, r), prompt_id=prompt.id, text=r)
        if isinstance(r, str)
        else Response.from_json(r)
        for r in row["responses"]
    )
    if "judgements" in row:
        judgements = tuple(Judgement.from_json(j) for j in row["judgements"])
    elif "ranks" in row:
        if len(row["ranks"]) != len(responses):
            raise ValueError(f"{len(row['ranks'])} ranks for {len(responses)} responses")
        annotator = str(row.get("annotator", f"file:{source}"))
        judgements = (_judged(prompt, responses, row["ranks"], annotator, source),)
    else:
        raise ValueError("it has neither ranks nor judgements")
    _check_ids(prompt, responses, judgements, where)
    return Comparison(prompt, responses, judgements)


def _check_ids(prompt: Prompt, responses: Sequence[Response], judgements: Sequence[Judgement], where: str) -> None:
    known = {r.id: r for r in responses}
    if any(known[r.id] != r for r in responses):
        raise ValueError("two different responses have the same id")
    told = [(r.id, r.prompt_id) for r in responses] + [(j.id, j.prompt_id) for j in judgements]
    for id_, prompt_id in told:
        if prompt_id != prompt.id:
            raise ValueError(f"{id_} belongs to the prompt {prompt_id}, this one is {prompt.id}")
    for judgement in judgements:
        unknown = sorted((set(judgement.ranks) | set(judgement.criteria)) - set(known))
        if unknown:
            raise BadInput(
                f"the ranking names the answer {unknown[0]}, which is not among the responses.",
                where,
                "Mend the id or add that response.",
            )

"""Foreign files of demonstrations and rankings -> canonical records. The format is told by the keys of the first line.

    demonstrations   messages; conversations (from/value); Alpaca (instruction, input, output);
                     Dolly (instruction, context, response, category); prompt/completion
    comparisons      HH-RLHF (chosen, rejected transcripts); TRL preference (prompt, chosen, rejected);
                     Open-Assistant message trees (replies with rank); K-way (prompt, responses, ranks): our own

Field names are those the formats' authors document. What has no field here is kept in `extra`.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.errors import BadInput
from palate.records import Conversation, Demonstration, Judgement, Message, Prompt, Response, stable_id

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
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror}).", path, "Check the path in the recipe.") from None
    return f"{told.st_size} {told.st_mtime_ns}"


def family_of(messages: Conversation) -> str:
    """Family of a prompt from a file: its first user turn, case and spacing evened out."""
    first = next((m.content for m in messages if m.role == "user"), "")
    return stable_id("family", " ".join(first.lower().split()))


# --- reading lines ---------------------------------------------------------------------------------------------------


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a .jsonl or .json file (also .gz, .xz) or a .parquet table. Raises BadInput."""
    if path.is_dir():
        raise BadInput("this is a folder.", path, "Name a file.")
    if path.suffix == ".parquet":
        yield from _table_rows(path)
        return
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
    opener = openers.get(path.suffix, open)
    number = 0
    try:
        with opener(path, "rb") as file:
            if ".json" in path.suffixes and ".jsonl" not in path.suffixes:
                start = file.read(1)
                file.seek(0)
                if start == b"[":
                    yield from enumerate(json.loads(file.read().decode("utf-8")), start=1)
                    return
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield number, _line(raw, path, number)
    except FileNotFoundError:
        raise BadInput("there is no such file.", path, "Check the path.") from None
    except (EOFError, OSError, lzma.LZMAError) as error:
        raise BadInput(f"cannot be read on ({error}).", f"{path}:{number + 1}", "Get the file again.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"not valid JSON ({error}).", path, "Mend the file.") from None


def _line(raw: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise BadInput(
            f"byte {error.start} of the line is not UTF-8.", f"{path}:{number}", "Save the file as UTF-8."
        ) from None
    except (json.JSONDecodeError, RecursionError):
        raise BadInput(
            "this line is not a JSON object (cut off, perhaps).", f"{path}:{number}", "Mend or delete the line."
        ) from None
    if not isinstance(value, dict):
        raise BadInput(f"expected an object, found {type(value).__name__}.", f"{path}:{number}", "One object a line.")
    return value


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(path) as table:
            for group in table.iter_batches(1000):
                for row in group.to_pylist():
                    number += 1
                    yield number, row
    except FileNotFoundError:
        raise BadInput("there is no such file.", path, "Check the path.") from None
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"unreadable Parquet ({str(error)[:80]}).", path, "Get the file again.") from None


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
                extra={k: v for k, v in row.items() if k not in used},
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BadInput(f"not a demonstration: {error}.", f"{path}:{number}", _MEND) from None


_MEND = "Expected messages, Alpaca or Dolly columns; mend or delete the line."


def _conversation(row: Row) -> tuple[Conversation, set[str]]:
    """(the conversation in a row, the keys it was made from)."""
    if "messages" in row:
        return _turns(row["messages"], "role", "content"), {"messages"}
    if "conversations" in row:
        return _turns(row["conversations"], "from", "value"), {"conversations"}
    if "instruction" in row:
        answer = "response" if "response" in row else "output"
        beside = row.get("context") or row.get("input") or ""
        question = f"{row['instruction']}\n\n{beside}".strip()
        used = {"instruction", "context", "input", answer, "category"}
        return _pair(question, row[answer]), used
    if "prompt" in row and "completion" in row:
        if isinstance(row["prompt"], str):
            return _pair(row["prompt"], row["completion"]), {"prompt", "completion"}
        return _turns([*row["prompt"], *row["completion"]], "role", "content"), {"prompt", "completion"}
    raise ValueError(f"keys {', '.join(sorted(row))}")


_ROLES = {"human": "user", "gpt": "assistant", "prompter": "user", "bot": "assistant"}


def _turns(turns: Iterable[Row], role: str, content: str) -> Conversation:
    found = []
    for turn in turns:
        name = str(turn[role])
        found.append(Message(role=_ROLES.get(name, name), content=turn[content]))  # type: ignore[arg-type]
    if not found:
        raise ValueError("there is no message in it")
    return tuple(found)


def _pair(question: Any, answer: Any) -> Conversation:
    if not str(question).strip() or not str(answer or "").strip():
        raise ValueError("the question or the answer is empty")
    return (Message(role="user", content=question), Message(role="assistant", content=answer))


def read_prompts(path: Path) -> Iterator[Prompt]:
    """The prompts of a file: {"prompt": text or messages}, {"messages": ...} or {"instruction": ...}; an assistant's
    last turn is left off."""
    for number, row in rows(path):
        try:
            if isinstance(row.get("prompt"), str):
                messages: Conversation = (Message(role="user", content=row["prompt"]),)
            elif "prompt" in row:
                messages = _turns(row["prompt"], "role", "content")
            elif "messages" in row:
                messages = _turns(row["messages"], "role", "content")
            else:
                messages = (Message(role="user", content=str(row["instruction"])),)
            if messages[-1].role == "assistant":
                messages = messages[:-1]
            yield make_prompt(messages, path.name, skill=str(row.get("category") or row.get("skill") or ""))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BadInput(
                f"not a prompt: {error}.", f"{path}:{number}", "Expected a prompt, messages or instruction."
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
        except BadInput:
            raise
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BadInput(
                f"not a comparison: {str(error).rstrip('.')}.",
                where,
                "Expected chosen and rejected, an Open-Assistant tree, or prompt, responses and ranks.",
            ) from None


def _comparisons(row: Row, source: str, where: str) -> Iterator[Comparison]:
    if "responses" in row:
        yield _k_way(row, source, where)
    elif "chosen" in row and "rejected" in row:
        prompt, chosen, rejected = _chosen_rejected(row)
        if chosen.strip() != rejected.strip():  # a pair of equal answers says nothing
            yield _ranked(prompt, [(chosen, 1), (rejected, 2)], source, dict(_extra(row)))
    elif "replies" in row or "prompt" in row:
        tree = row["prompt"] if isinstance(row.get("prompt"), Mapping) else row
        yield from _tree(tree, (), source)
    else:
        raise ValueError(f"keys {', '.join(sorted(row))}")


def _extra(row: Row) -> Iterator[tuple[str, Any]]:
    return ((k, v) for k, v in row.items() if k not in ("prompt", "chosen", "rejected"))


_TURN = re.compile(r"\n\n(Human|Assistant):")


def transcript(text: str) -> Conversation:
    """An HH-RLHF transcript ("\\n\\nHuman: ...\\n\\nAssistant: ...") as messages."""
    parts = _TURN.split(text)
    if len(parts) < 3:
        raise ValueError('it has no "\\n\\nHuman:" turn')
    return tuple(
        Message(role="user" if who == "Human" else "assistant", content=said.strip())
        for who, said in zip(parts[1::2], parts[2::2], strict=True)
    )


def _chosen_rejected(row: Row) -> tuple[Conversation, str, str]:
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" in row:
        prompt = row["prompt"]
        start = (
            (Message(role="user", content=prompt),) if isinstance(prompt, str) else _turns(prompt, "role", "content")
        )
        if isinstance(chosen, str):
            return start, chosen, rejected
        return start, chosen[-1]["content"], rejected[-1]["content"]
    if isinstance(chosen, str):
        liked, other = transcript(chosen), transcript(rejected)
    else:
        liked, other = _turns(chosen, "role", "content"), _turns(rejected, "role", "content")
    # A few HH-RLHF pairs part before the last turn: what is compared is the first answer in which they differ.
    alike = next((k for k, (a, b) in enumerate(zip(liked, other)) if a != b), min(len(liked), len(other)) - 1)
    if alike == 0 or liked[alike].role != "assistant" or other[alike].role != "assistant":
        return liked[: max(alike, 1)], "", ""  # they differ in what the person said, which nobody compared
    return liked[:alike], liked[alike].content, other[alike].content


def _ranked(messages: Conversation, answers: list[tuple[str, int]], source: str, extra: Row) -> Comparison:
    prompt = make_prompt(messages, source, extra=extra)
    responses = tuple(
        Response(id=stable_id("response", prompt.id, text), prompt_id=prompt.id, text=text, origin="human")
        for text, _ in answers
    )
    judgement = Judgement(
        id=stable_id("judgement", source, prompt.id, *(r.id for r in responses)),
        prompt_id=prompt.id,
        annotator=f"file:{source}",
        ranks={r.id: rank for r, (_, rank) in zip(responses, answers, strict=True)},
        source=source,
    )
    return Comparison(prompt, responses, (judgement,))


def _tree(node: Row, before: Conversation, source: str) -> Iterator[Comparison]:
    """Every prompter turn of an Open-Assistant tree whose replies are ranked (rank 0 is best)."""
    role = _ROLES.get(str(node["role"]), str(node["role"]))
    here = (*before, Message(role=role, content=node["text"]))  # type: ignore[arg-type]
    replies = [reply for reply in node.get("replies") or () if not reply.get("deleted")]
    ranked = [(reply["text"], reply["rank"] + 1) for reply in replies if reply.get("rank") is not None]
    if role == "user" and len({text for text, _ in ranked}) > 1:
        distinct = {text: rank for text, rank in reversed(ranked)}
        answers = [(text, 1 + sum(distinct[o] < rank for o in distinct)) for text, rank in distinct.items()]
        yield _ranked(here, answers, source, {})
    for reply in replies:
        yield from _tree(reply, here, source)


def _k_way(row: Row, source: str, where: str) -> Comparison:
    """{"prompt": text or record, "responses": [text or record, ...], "ranks": [1, 2, ...] or "judgements": [...]}."""
    told = row["prompt"]
    if isinstance(told, str):
        prompt = make_prompt((Message(role="user", content=told),), source)
    else:
        prompt = Prompt.from_json(told)
    responses = tuple(
        Response(id=stable_id("response", prompt.id, r), prompt_id=prompt.id, text=r)
        if isinstance(r, str)
        else Response.from_json(r)
        for r in row["responses"]
    )
    if "judgements" in row:
        judgements = tuple(Judgement.from_json(j) for j in row["judgements"])
    else:
        ranks = row["ranks"]
        if len(ranks) != len(responses):
            raise ValueError(f"{len(ranks)} ranks for {len(responses)} responses")
        judgements = (
            Judgement(
                id=stable_id("judgement", source, prompt.id, *(r.id for r in responses)),
                prompt_id=prompt.id,
                annotator=str(row.get("annotator", f"file:{source}")),
                ranks={r.id: rank for r, rank in zip(responses, ranks, strict=True)},
                source=source,
            ),
        )
    known = {r.id for r in responses}
    for judgement in judgements:
        unknown = sorted(set(judgement.ranks) - known)
        if unknown:
            raise BadInput(
                f"the ranking names the answer {unknown[0]}, which is not among the responses.",
                where,
                "Mend the id or add that response.",
            )
    return Comparison(prompt, responses, judgements)


def write_comparisons(path: Path, comparisons: Iterable[Comparison]) -> int:
    """Write canonical K-way lines, which `read_comparisons` gives back exactly."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for comparison in comparisons:
            line = {
                "prompt": comparison.prompt.to_json(),
                "responses": [r.to_json() for r in comparison.responses],
                "judgements": [j.to_json() for j in comparison.judgements],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_preference_pairs(path: Path, comparisons: Iterable[Comparison]) -> int:
    """Write TRL's conversational preference format: one line per pair without a tie."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for comparison in comparisons:
            text = {r.id: r.text for r in comparison.responses}
            for judgement in comparison.judgements:
                for a, b, target in judgement.pairs():
                    if target == 0.5:
                        continue
                    better, worse = (a, b) if target == 1.0 else (b, a)
                    line = {
                        "prompt": [{"role": m.role, "content": m.content} for m in comparison.prompt.messages],
                        "chosen": [{"role": "assistant", "content": text[better]}],
                        "rejected": [{"role": "assistant", "content": text[worse]}],
                    }
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    count += 1
    return count

"""What was chosen in a chat -> judgements, with the prompt and the answers they are about, in the campaign of chats.

The answers have no token ids: they outlive the run's tokenizer, and whoever learns from them reads their text.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from fastapi import HTTPException

from palate.errors import BadInput
from palate.feedback.store import append_judgements
from palate.feedback.tables import DUELS
from palate.records import Judgement, Prompt, Response, stable_id
from palate.studio import talks
from palate.studio.here import Studio
from palate.studio.talks import Side, Slot, State, Talk, Turn, Verdict

SOURCE = "studio chat"
ORDERS: dict[Verdict, tuple[int, int]] = {"a": (1, 2), "b": (2, 1), "tie": (1, 1), "both_bad": (1, 1)}
WHOLE: tuple[State, ...] = ("whole", "cut")
"""What is judged: of an answer that somebody stopped nobody knows how it goes on."""


def vote(
    studio: Studio, account: str, talk_id: str, turn_id: str, verdict: Verdict, *, reason: str, seconds: float | None
) -> Turn:
    """Which of two blind answers is better. It is stored first; the turn that comes back names the models."""
    talk = talks.read(studio, account, talk_id)
    turn = talk.turn(turn_id)
    if turn.role != "duel" or turn.a is None or turn.b is None:
        raise HTTPException(409, "There are no two answers to choose between.")
    if turn.verdict is not None:
        return _again(turn, verdict)
    if turn.a.state not in WHOLE or turn.b.state not in WHOLE:
        raise HTTPException(409, "These answers were stopped, so nobody can tell which is better. Ask again.")
    if turn.a.text == turn.b.text and verdict in ("a", "b"):
        raise BadInput("both answers are the same.", "verdict", "Say that they are equally good, or both bad.")
    voices = _voices(studio, account, turn_id)
    prompt = _prompt(talk, turn)
    answers = [
        _response(prompt, turn.id, slot, side, voices[slot]) for slot, side in (("a", turn.a), ("b", turn.b))
    ]  # fmt: skip
    judgement = _judgement(
        studio,
        account,
        stable_id("judgement", "chat", account, turn.id),
        prompt,
        dict(zip([answer.id for answer in answers], ORDERS[verdict], strict=True)),
        reason=reason,
        seconds=seconds,
        extra={"both_bad": True} if verdict == "both_bad" else {},
    )
    kept: Slot = verdict if verdict in ("a", "b") else studio.rng.choice(("a", "b"))
    _lay(studio, prompt, answers)
    with talks.changing(studio, account, talk_id) as (connection, now):
        turn = now.turn(turn_id)
        if turn.verdict is not None:
            return _again(turn, verdict)
        append_judgements(connection, [judgement], studio.chats, studio.store.url)
        turn.verdict, turn.kept, turn.judgement = verdict, kept, judgement.id
        turn.names = {"a": voices["a"]["model"], "b": voices["b"]["model"]}
    return turn


def _again(turn: Turn, verdict: Verdict) -> Turn:
    """The same once more is no error. Another one, now that the names are known, would not be blind."""
    if turn.verdict != verdict:
        raise HTTPException(409, "You have chosen already, and know now whose answers they are.")
    return turn


def _voices(studio: Studio, account: str, turn_id: str) -> dict[str, dict[str, Any]]:
    query = sa.select(DUELS.c.content).where(DUELS.c.id == turn_id, DUELS.c.account == account)
    with studio.store.reading("duels") as connection:
        return dict(connection.execute(query).scalar_one())


def prefer(studio: Studio, account: str, talk_id: str, turn_id: str, *, reason: str, seconds: float | None) -> Turn:
    """That one answer is better than every other one to its question. The question's turn comes back, which says so.

    Whoever changes their mind, or asks again and chooses anew, supersedes what they said before.
    """
    talk = talks.read(studio, account, talk_id)
    best = talk.turn(turn_id)
    if best.role != "assistant":
        raise HTTPException(409, "Only one of several answers can be the best one.")
    others = {
        turn.text: turn
        for turn in reversed(talk.answers(best.parent))
        if turn.role == "assistant" and turn.state in WHOLE and turn.text != best.text
    }
    if not others or best.state not in WHOLE:
        raise HTTPException(409, "There is no other whole answer to compare this one with. Ask again first.")
    question = talk.turn(best.parent)
    prompt = _prompt(talk, best)
    turns = [turn for turn in talk.answers(question.id) if turn.id == best.id or turn in others.values()]
    answers = {
        turn.id: _written(prompt, turn.text)
        if turn.by_person
        else _response(prompt, turn.id, "", turn, drawn(studio, account, turn))
        for turn in turns
    }
    ranks = {answers[turn.id].id: 1 if turn.id == best.id else 2 for turn in turns}
    before = studio.store.judgement(question.judgement, studio.chats) if question.judgement else None
    if before is not None and before.ranks == ranks:
        return question
    judgement = _judgement(
        studio,
        account,
        stable_id("judgement", "chat", account, question.id, json.dumps(ranks), question.judgement),
        prompt,
        ranks,
        reason=reason,
        seconds=seconds,
        supersedes=question.judgement or None,
        # Nobody said which of the others is better; they share a rank all the same, so this has to be said.
        extra={"names_shown": True, **({"only_best": True} if len(turns) > 2 else {})},
    )
    _lay(studio, prompt, list(answers.values()))
    with talks.changing(studio, account, talk_id) as (connection, now):
        question = now.turn(question.id)
        if question.judgement != (judgement.supersedes or ""):
            raise HTTPException(409, "You have chosen another one meanwhile. Load the page again.")
        append_judgements(connection, [judgement], studio.chats, studio.store.url)
        question.preferred, question.judgement = best.id, judgement.id
    return question


def improve(studio: Studio, account: str, talk_id: str, turn_id: str, text: str, *, reason: str) -> tuple[Talk, Turn]:
    """What a model should have said: better than what it said, and from now on the answer in this conversation."""
    talk = talks.read(studio, account, talk_id)
    turn = talk.turn(turn_id)
    said = talks.the_answer(turn)
    if said.state not in WHOLE:
        raise HTTPException(409, "This answer was stopped, so nobody knows how it goes on. Ask again.")
    if said.text == text:
        raise BadInput("this is what the model said.", "text", "Change it, or use it as an example as it is.")
    prompt = _prompt(talk, turn)
    voice = drawn(studio, account, turn)
    original = (
        _written(prompt, said.text) if turn.by_person else _response(prompt, turn.id, turn.kept or "", said, voice)
    )
    better = _written(prompt, text)
    id_ = stable_id("judgement", "chat", account, turn.id, "improved", text)
    judgement = studio.store.judgement(id_, studio.chats) or _judgement(
        studio,
        account,
        id_,
        prompt,
        {better.id: 1, original.id: 2},
        reason=reason,
        order=(original.id, better.id),
        extra={"names_shown": True, "improved": True},
    )
    _lay(studio, prompt, [original, better])
    with talks.changing(studio, account, talk_id) as (connection, now):
        append_judgements(connection, [judgement], studio.chats, studio.store.url)
        same = [one for one in now.answers(turn.parent) if one.by_person and one.text == text]
        made = same[0] if same else Turn(id=talks.new_id(), parent=turn.parent, role="assistant", text=text)
        made.by_person, made.judgement = True, judgement.id
        if not same:
            now.turns.append(made)
        now.at = made.id
    return now, made


def drawn(studio: Studio, account: str, turn: Turn) -> dict[str, Any]:
    """Which model gave an answer that was decided for, and how it was drawn; empty for what a person wrote."""
    if turn.by_person:
        return {}
    if turn.kept is not None:
        return _voices(studio, account, turn.id)[turn.kept]
    return {name: getattr(turn, name) for name in ("model", "checkpoint", "temperature", "seed")}


def _prompt(talk: Talk, answer: Turn) -> Prompt:
    """What an answer was given to. The same conversation is the same prompt, whoever has it."""
    messages = talk.messages(answer.parent)
    id_ = stable_id("prompt", "chat", *(f"{message.role} {message.content}" for message in messages))
    return Prompt(id=id_, messages=messages, family=f"chat {id_}", split="train", source=SOURCE)


def _response(prompt: Prompt, turn_id: str, slot: str, said: Side | Turn, voice: Mapping[str, Any]) -> Response:
    return Response(
        id=stable_id("response", "chat", turn_id, slot),
        prompt_id=prompt.id,
        text=said.text,
        ended=said.state == "whole",
        model=voice["model"],
        checkpoint=voice["checkpoint"],
        sampling={"temperature": voice["temperature"], "seed": voice["seed"]},
    )


def _written(prompt: Prompt, text: str) -> Response:
    """What a person wrote."""
    return Response(id=stable_id("response", prompt.id, text), prompt_id=prompt.id, text=text, origin="human")


def _judgement(
    studio: Studio,
    account: str,
    id_: str,
    prompt: Prompt,
    ranks: dict[str, int],
    *,
    reason: str = "",
    seconds: float | None = None,
    supersedes: str | None = None,
    order: Sequence[str] = (),
    extra: dict[str, Any] | None = None,
) -> Judgement:
    return Judgement(
        id=id_,
        prompt_id=prompt.id,
        annotator=account,
        ranks=ranks,
        rationale=reason.strip(),
        seconds=round(seconds, 1) if seconds is not None else None,
        presented_order=tuple(order or ranks),
        touched=True,
        guidelines_version=studio.guidelines.version,
        created_at=datetime.datetime.fromtimestamp(studio.now(), datetime.UTC).isoformat(timespec="seconds"),
        supersedes=supersedes,
        source=SOURCE,
        extra=extra or {},
    )


def _lay(studio: Studio, prompt: Prompt, answers: Sequence[Response]) -> None:
    """Into the store, where a judgement finds them. Without one they say nothing."""
    studio.store.add_prompts([prompt], studio.chats)
    studio.store.add_responses(answers, studio.chats)

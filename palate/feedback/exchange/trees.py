"""Open-Assistant's message trees: every turn of a person is a prompt, every reply of an assistant an answer to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from palate.feedback.exchange.conversations import rest
from palate.feedback.exchange.pile import Extra, Pile, details, left_of, remembered
from palate.feedback.exchange.turns import ROLES, competition, text_of
from palate.records import Conversation, Judgement, Message, Prompt, Response

Row = Mapping[str, Any]
NAME = "oasst"


def is_tree(row: Row) -> bool:
    """{"message_tree_id", "tree_state", "prompt": {"message_id", "text", "role": "prompter", "replies": [...]}}, or
    that message alone."""
    root = row.get("prompt", row)
    return isinstance(root, Mapping) and {"text", "role"} <= set(root) and (root is not row or "replies" in root)


def read_tree(pile: Pile, row: Row) -> None:
    """Prompts, answers, and a judgement of every group of two replies or more that have ranks. Deleted messages are
    left out with what follows them."""
    root = row.get("prompt", row)
    if not isinstance(root, Mapping):
        raise ValueError("prompt is no message with its replies")
    _asked(pile, root, (), {"tree": rest(row, "prompt"), "root": True} if root is not row else {"alone": True})


def _asked(pile: Pile, node: Row, before: Conversation, noted: Extra) -> None:
    if ROLES.get(text_of(node, "role"), node["role"]) != "user":
        raise ValueError(f"a turn of the person's has the role {node['role']!r}")
    here = (*before, Message(role="user", content=text_of(node, "text")))
    replies = _replies(pile, node)
    bare = "replies" not in node or None
    left = rest(node, "text", "role", "replies")
    prompt = pile.ask(here, remembered(NAME, left, role=_spelt(node), bare=bare, **noted), again=True)
    alone = sum(reply.get("rank") is not None for reply in replies) == 1
    answers = [_answered(pile, prompt, reply, alone=alone) for reply in replies]
    ranked = [(answer, reply["rank"]) for answer, reply in zip(answers, replies) if type(reply.get("rank")) is int]
    if len(ranked) > 1:
        ranks = competition([rank for _, rank in ranked])
        told = [rank for _, rank in ranked]
        odd = told if told != [rank - 1 for rank in ranks] else None
        given = [(answer, rank) for (answer, _), rank in zip(ranked, ranks)]
        pile.judge(prompt, given, remembered(NAME, always=True, ranks=odd))
    for answer, reply in zip(answers, replies):
        for following in _replies(pile, reply):
            said = Message(role="assistant", content=answer.text)
            _asked(pile, following, (*here, said), {"parent": answer.id})


def _replies(pile: Pile, node: Row) -> list[Row]:
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, Mapping) for reply in replies):
        raise ValueError("replies are no list of objects")
    kept = [reply for reply in replies if not reply.get("deleted")]
    if gone := len(replies) - len(kept):
        pile.dropped["a deleted message"] += gone
    return kept


def _answered(pile: Pile, prompt: Prompt, node: Row, *, alone: bool) -> Response:
    """alone: no other reply has a rank, so that a judgement does not say it."""
    if ROLES.get(text_of(node, "role"), node["role"]) != "assistant":
        raise ValueError(f"a reply to the person has the role {node['role']!r}")
    rank = node.get("rank")
    if rank is not None and type(rank) is not int:
        raise ValueError(f"the rank {rank!r} is no whole number")
    model = node.get("model_name") if isinstance(node.get("model_name"), str) else ""
    used = ["text", "role", "replies", *(["model_name"] if model else []), *(["rank"] if rank is not None else [])]
    bare, spelt = "replies" not in node or None, _spelt(node, "assistant")
    extra = remembered(NAME, rest(node, *used), always=True, rank=rank if alone else None, role=spelt, bare=bare)
    origin: Any = "model" if node.get("synthetic") is True else "human"
    return pile.answer(prompt, text_of(node, "text"), extra, model=model or "", origin=origin, again=True)


def _spelt(node: Row, usual: str = "prompter") -> str | None:
    return node["role"] if node["role"] != usual else None


# --- writing ---------------------------------------------------------------------------------------------------------


def write_tree(pile: Pile) -> Iterator[Row]:
    """A tree for every first prompt; prompts of other formats are trees of their own. The ranks of a group are those of
    its judgement, and by their mean where there are several."""
    following: dict[str, list[Prompt]] = {}
    for prompt in pile.prompts.values():
        if parent := details(prompt, NAME).get("parent"):
            following.setdefault(parent, []).append(prompt)
    judged = pile.judged()
    for prompt in pile.prompts.values():
        told = details(prompt, NAME)
        if "parent" in told:
            continue
        if prompt.messages[0].role == "system":
            pile.dropped["a system message"] += 1
            continue
        node = _node(pile, prompt, judged, following)
        for number in range(len(prompt.messages) - 2, -1, -1):
            node = _before(prompt, number, node)
        fresh = {"message_tree_id": prompt.id, "tree_state": "ready_for_export"}
        tree = told.get("tree", {}) if told.get("root") else fresh
        yield node if told.get("alone") else {**tree, "prompt": node}


def _before(prompt: Prompt, number: int, node: Extra) -> Extra:
    """An earlier turn of a conversation that was no tree."""
    role = "assistant" if prompt.messages[number].role == "assistant" else "prompter"
    id_ = f"{prompt.id}.{number}"
    child = {**node, "parent_id": id_}
    return {"message_id": id_, "text": prompt.messages[number].content, "role": role, "replies": [child]}


def _node(
    pile: Pile, prompt: Prompt, judged: Mapping[str, list[Judgement]], following: Mapping[str, list[Prompt]]
) -> Extra:
    answers = pile.answers(prompt.id)
    ranks = _ranks(pile, judged.get(prompt.id, []))
    replies = []
    for answer in answers:
        told = details(answer, NAME)
        left = left_of(answer, NAME) if told else {"message_id": answer.id, "parent_id": prompt.id}
        rank = ranks.get(answer.id, None if ranks else told.get("rank"))
        below = [_node(pile, next_, judged, following) for next_ in following.get(answer.id, [])]
        replies.append({
            **left,
            "text": answer.text,
            "role": told.get("role", "assistant"),
            **({"model_name": answer.model} if answer.model else {}),
            **({"rank": rank} if rank is not None else {}),
            **({"synthetic": answer.origin == "model"} if not told else {}),
            **({} if told.get("bare") else {"replies": below}),
        })  # fmt: skip
    told = details(prompt, NAME)
    left = left_of(prompt, NAME) if told else {"message_id": prompt.id}
    end = {} if told.get("bare") else {"replies": replies}
    return {**left, "text": prompt.messages[-1].content, "role": told.get("role", "prompter"), **end}


def _ranks(pile: Pile, judgements: list[Judgement]) -> dict[str, int]:
    """Answer -> rank from 0, of one judgement or of the mean of several."""
    ordered = [judgement for judgement in judgements if judgement.ranks]
    if len(ordered) == 1 and "ranks" in details(ordered[0], NAME):
        return dict(zip(ordered[0].ranks, details(ordered[0], NAME)["ranks"], strict=True))
    given: dict[str, list[int]] = {}
    for judgement in ordered:
        for id_, rank in judgement.ranks.items():
            given.setdefault(id_, []).append(rank)
    means = [sum(ranks) / len(ranks) for ranks in given.values()]
    if len(ordered) > 1:
        pile.noted["groups with several judgements, written by their mean rank"] += 1
    return {id_: rank - 1 for id_, rank in zip(given, competition(means))}

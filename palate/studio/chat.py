"""Talk with the models of the run: with one, or with two side by side without knowing which is which.

Which of two models is A is decided here by chance and told to nobody before one of the answers was chosen and that was
stored.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from palate.errors import BadInput
from palate.records import Message
from palate.studio import drafts, talks, verdicts
from palate.studio.answering import Events, Question, Voice
from palate.studio.compose import Composed
from palate.studio.here import Anybody, Evaluator, Here, Speaker, Studio
from palate.studio.pages import page
from palate.studio.talks import Talk, Title, Turn, Verdict
from palate.studio.write import mark_key

router = APIRouter(tags=["chat"])

Id = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]*$")]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Said = Annotated[str, Field(min_length=1, max_length=8000)]
Written = Annotated[str, Field(min_length=1, max_length=50_000)]
Reason = Annotated[str, Field(max_length=5000)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
SLOTS = 99
"""Demonstrations that somebody may have begun at once."""


class Strict(BaseModel):
    """What comes in: a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid")


class Beginning(Strict):
    """A new conversation. What the system message says holds for all of it."""

    system: Annotated[str, Field(max_length=8000)] = ""


class Ask(Strict):
    """Something to be answered: a new question after `parent` (empty: the first one), or, without a text, the question
    `parent` once more."""

    conversation: Id
    parent: Id = ""
    text: Said | None = None
    blind: bool = False
    """Two models answer; which is A and which B nobody is told before choosing."""
    models: Annotated[list[Name], Field(max_length=2)] = []
    """The one that answers; of a blind pair the two, or none for any two."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7


class Where(Strict):
    """A turn of a conversation."""

    conversation: Id
    turn: Id


class Vote(Where):
    """Which of two blind answers is better."""

    verdict: Verdict
    reason: Reason = ""
    seconds: Seconds | None = None


class Preference(Where):
    """This answer is better than every other one to its question."""

    reason: Reason = ""
    seconds: Seconds | None = None


class Improvement(Where):
    """What the model should have said. The same words as the model's make an example only, and no judgement."""

    text: Written
    reason: Reason = ""
    example: bool = False
    """Also begin a demonstration with it, on the page where those are written (authors only)."""


class Improved(BaseModel):
    """The conversation as it is now, the judgement's id, and where the demonstration is that was begun, if one was."""

    conversation: Talk
    judgement: str | None
    example: str


class Models(BaseModel):
    """Who can be talked with, the newest first."""

    models: list[str]


# --- the work ------------------------------------------------------------------------------------------------------


def speaker_of(studio: Studio) -> Speaker:
    """409 where there is nobody to talk with."""
    if studio.speaker is None or not studio.speaker.names:
        raise HTTPException(409, "There is no model to talk with yet. Open the studio on a run that has one.")
    return studio.speaker


def ask(studio: Studio, account: str, asked: Ask) -> Events:
    """Keep the question and begin the answer. Raises HTTPException 404, 409, 413 and BadInput."""
    names = _chosen(studio, speaker_of(studio).names, asked)
    place = studio.turns.begin(account)
    try:
        return Events(studio, place, _question(studio, account, asked, names))
    except BaseException:
        studio.turns.end(place)
        raise


def _chosen(studio: Studio, have: Any, asked: Ask) -> list[str]:
    """Who answers; a blind pair in an order of chance."""
    for name in asked.models:
        if name not in have:
            raise BadInput(f"there is no model {name!r}.", "models", f"There is {', '.join(have)}.")
    if not asked.blind:
        if len(asked.models) != 1:
            raise BadInput("one model answers.", "models", "Name one, or ask two with blind.")
        return asked.models
    if len(have) < 2:
        raise BadInput("there is only one model here.", "blind", "Train another one, or talk with this one alone.")
    if asked.models and len(set(asked.models)) != 2:
        raise BadInput("a blind pair is two different models.", "models", "Name two, or none for any two.")
    return studio.rng.sample(asked.models or list(have), 2)


def _question(studio: Studio, account: str, asked: Ask, names: list[str]) -> Question:
    speaker = speaker_of(studio)
    with talks.changing(studio, account, asked.conversation) as (_, talk):
        if asked.text is None:
            question = talk.turn(asked.parent)
            if question.role != "user":
                raise HTTPException(409, "Only a question can be answered once more.")
            if len(talk.answers(question.id)) >= talks.MOST_ALTERNATIVES:
                raise HTTPException(413, f"{talks.MOST_ALTERNATIVES} answers to one question are enough.")
        else:
            if not asked.text.strip():
                raise BadInput("there is nothing in it to be answered.", "text", "Write something.")
            if asked.parent and talk.turn(asked.parent).role == "user":
                raise HTTPException(409, "The last question has no answer yet. Ask for it again, or edit it.")
            question = Turn(id=talks.new_id(), parent=asked.parent, role="user", text=asked.text.strip())
            talk.turns.append(question)
        if len(talk.turns) >= talks.MOST_TURNS:
            raise HTTPException(413, f"This conversation has {talks.MOST_TURNS} turns. Begin a new one.")
        messages = talk.messages(question.id)
        if talks.too_long(messages):
            raise HTTPException(413, f"A conversation has {talks.LONGEST_PATH:,} characters at most. Begin a new one.")
        talk.at = question.id
        talk.title = talk.title or talks.titled(question.text)
        talk.blind, talk.models, talk.temperature = asked.blind, asked.models, asked.temperature
    if asked.text is not None:
        for key in (asked.conversation, *([] if asked.parent else ["new"])):
            drafts.drop(studio, account, f"chat:{key}")
    voices = [
        Voice(name, speaker.checkpoint(name), asked.temperature, studio.rng.randrange(2**31)) for name in names
    ]  # fmt: skip
    return Question(account, asked.conversation, question.id, messages, voices)


def improve(studio: Studio, account: str, given: Improvement, *, author: bool) -> Improved:
    """Keep what a model should have said, and begin an example with it. Raises HTTPException and BadInput."""
    text = given.text.strip()
    talk = talks.read(studio, account, given.conversation)
    if given.example and not author:
        raise HTTPException(403, "Examples are written by authors; a lead can make you one.")
    if talk.turn(given.turn).role == "user":
        raise HTTPException(409, "This is what you said. Edit it instead.")
    judgement: str | None = None
    if not given.example or talks.the_answer(talk.turn(given.turn)).text != text:
        talk, made = verdicts.improve(studio, account, talk.id, given.turn, text, reason=given.reason)
        judgement = made.judgement
    example = _begin_example(studio, account, talk, given, text) if given.example else ""
    return Improved(conversation=talks.all_viewed(talk), judgement=judgement, example=example)


def _begin_example(studio: Studio, account: str, talk: Talk, given: Improvement, text: str) -> str:
    """The conversation with this last answer as a demonstration that is begun, in the first free place; its address.

    That a model drafted it is noted here and not told by the page that is opened then, so that the mark stays.
    """
    turn = talk.turn(given.turn)
    said = [*talk.messages(turn.parent), Message(role="assistant", content=text)]
    begun = drafts.begun(studio, account, "write:")
    slot = next((n for n in range(1, SLOTS + 1) if Composed(slot=n).key not in begun), None)
    if slot is None:
        raise HTTPException(413, f"You have begun {SLOTS} examples. Finish some on the page Write first.")
    composed = Composed(token=secrets.token_hex(12), system=talk.system, slot=slot)
    spoken = [message.content for message in said if message.role != "system"]
    composed.exchanges = list(zip(spoken[::2], spoken[1::2], strict=True))
    if not turn.by_person:
        mark = {"text": talks.the_answer(turn).text, **verdicts.drawn(studio, account, turn)}
        drafts.keep(studio, account, mark_key(composed.token), mark)
    drafts.keep(studio, account, composed.key, composed.to_json())
    return composed.address


# --- pages ---------------------------------------------------------------------------------------------------------


@router.get("/chat", response_class=HTMLResponse, include_in_schema=False)
def show(request: Request, studio: Here, person: Anybody) -> HTMLResponse:
    """The page, for a new conversation."""
    return _page(request, studio, person.name, Talk(id=""), judges=person.may("evaluator"))


@router.get("/chat/{id_}", response_class=HTMLResponse, include_in_schema=False)
def show_one(request: Request, studio: Here, person: Anybody, id_: str) -> HTMLResponse:
    """The page, with a conversation of one's own."""
    talk = talks.read(studio, person.name, id_)
    return _page(request, studio, person.name, talk, judges=person.may("evaluator"))


def _page(request: Request, studio: Studio, account: str, talk: Talk, *, judges: bool) -> HTMLResponse:
    return page(
        request,
        "chat.html",
        models=list(studio.speaker.names) if studio.speaker is not None else [],
        has_run=studio.workspace is not None,
        talk=talk,
        past=talks.listed(studio, account),
        judges=judges,
    )


# --- for programs --------------------------------------------------------------------------------------------------


@router.get("/api/v1/chat/models")
def get_models(studio: Here, person: Anybody) -> Models:
    """Who can be talked with."""
    return Models(models=list(studio.speaker.names) if studio.speaker is not None else [])


@router.get("/api/v1/chat/conversations")
def get_conversations(studio: Here, person: Anybody) -> list[Title]:
    """Your last conversations."""
    return talks.listed(studio, person.name)


@router.post("/api/v1/chat/conversations", status_code=201)
def post_conversation(given: Beginning, studio: Here, person: Anybody) -> Talk:
    """Begin a conversation."""
    return talks.begin(studio, person.name, given.system.strip())


@router.get("/api/v1/chat/conversations/{id_}")
def get_conversation(id_: str, studio: Here, person: Anybody) -> Talk:
    """A conversation of yours with all its branches."""
    return talks.all_viewed(talks.read(studio, person.name, id_))


@router.delete("/api/v1/chat/conversations/{id_}", status_code=204)
def delete_conversation(id_: str, studio: Here, person: Anybody) -> Response:
    """Forget a conversation of yours. Judgements you made of it stay."""
    talks.forget(studio, person.name, id_)
    return Response(status_code=204)


@router.put("/api/v1/chat/at", status_code=204)
def put_at(given: Where, studio: Here, person: Anybody) -> Response:
    """Which branch you are at, for when you come back."""
    with talks.changing(studio, person.name, given.conversation) as (_, talk):
        talk.at = talk.turn(given.turn).id
    return Response(status_code=204)


@router.post(
    "/api/v1/chat/say",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events, each a JSON object; then [DONE]."}},
)
def post_say(asked: Ask, studio: Here, person: Anybody) -> Response:
    """Ask, and hear the answer as it is made: Server-Sent Events, each `data:` and one JSON object.

    First `{"question", "answer"}`, the ids of both turns; `{"waiting": n}` while n others come first; then `{"text"}`
    with the next piece, of a blind pair `{"a", "b"}`; at the end `{"turn"}`, what was kept, or `{"error"}` with a line;
    last `data: [DONE]`. 409 while another answer is being written for you.
    """
    if asked.blind and not person.may("evaluator"):
        raise HTTPException(403, "Two blind answers are there to be judged, which needs the role evaluator.")
    return ask(studio, person.name, asked)


@router.post("/api/v1/chat/stop", status_code=204)
def post_stop(studio: Here, person: Anybody) -> Response:
    """End the answer that is being written for you where it is; what was said so far is kept."""
    studio.turns.stop(person.name)
    return Response(status_code=204)


@router.post("/api/v1/chat/vote")
def post_vote(given: Vote, studio: Here, person: Evaluator) -> Turn:
    """Choose between two blind answers. The judgement is stored; then you are told whose answers they are."""
    turn = verdicts.vote(
        studio,
        person.name,
        given.conversation,
        given.turn,
        given.verdict,
        reason=given.reason,
        seconds=given.seconds,
    )
    return talks.viewed(turn)


@router.post("/api/v1/chat/prefer")
def post_prefer(given: Preference, studio: Here, person: Evaluator) -> Turn:
    """Say that one of several answers to a question is better than the others. The question's turn comes back."""
    return verdicts.prefer(
        studio, person.name, given.conversation, given.turn, reason=given.reason, seconds=given.seconds
    )


@router.post("/api/v1/chat/improve")
def post_improve(given: Improvement, studio: Here, person: Evaluator) -> Improved:
    """Write what a model should have said: it is stored as better than what the model said, and the conversation goes
    on with it; if you want, it begins a demonstration."""
    return improve(studio, person.name, given, author=person.may("author"))

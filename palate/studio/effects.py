"""What a reward model makes of people's judgements: what the pages and the API tell of it. It is computed by
palate/commands/effects.py, which has a model and torch; the studio has neither."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel


class Share(BaseModel):
    """A mean with its 95 % interval over `n` prompts."""

    mean: float
    low: float
    high: float
    n: int


class Point(BaseModel):
    """One share of the judgements."""

    labels: int
    """How many judgements the heads were fitted on."""
    subsets: int
    """How many random choices of that many the accuracy is the mean of."""
    accuracy: Share


class Curve(BaseModel):
    """How often the reward model's heads order pairs of held-out answers as annotators do, by how many judgements they
    were fitted on. The body under the heads stays the trained one, which has seen the judgements it was trained on."""

    simulated: bool
    points: list[Point]
    agreement: Share | None
    """How often two annotators agree on the same held-out answers: nobody can predict a stranger better for long."""


class Said(BaseModel):
    """One message."""

    role: str
    content: str


class Ranked(BaseModel):
    """An answer and what the reward model gives it, in standard deviations of all scores, without a person's judgements
    and with them."""

    text: str
    before: float
    after: float


class Example(BaseModel):
    """A prompt on which another answer is first now."""

    messages: list[Said]
    was_first: Ranked
    is_first: Ranked


class Changed(BaseModel):
    """What one person's judgements changed on fixed prompts, none of which is trained on."""

    judgements: int
    """Of this person, on prompts that are trained on."""
    earlier: int
    """Of this person, too, but on both sides: where nobody else judged, the later half is held against the first."""
    others: int
    """Of other people."""
    others_simulated: int
    """Of simulated annotators, who stand in where no other person judged."""
    weight: float
    """As how many of the others' each of this person's judgements counts."""
    another_first: Share
    """On which share of the fixed prompts another answer is first."""
    by_chance: Share
    """The same for as many judgements whose orders were dealt at random."""
    random_orders: int
    """How many times they were dealt."""
    agreed: Share | None
    """How often the reward model, before it had learned from them, ordered this person's pairs as they did."""
    examples: list[Example]
    prompts: list[str]
    """Ids of the examples' prompts."""


class Arm(BaseModel):
    """Prompts chosen in one way."""

    name: str
    prompts: int
    judgements: int
    right: Share | None
    """How often the reward model, which was not trained on these judgements, orders their pairs as people did. Low is
    good: there was something to learn."""
    held_out: Share | None
    """Accuracy on held-out prompts of heads fitted on `labels` judgements of this arm."""


class Arms(BaseModel):
    """Both arms beside each other."""

    arms: list[Arm]
    labels: int
    """Judgements of each arm that the heads were fitted on, and not one more."""
    difference: Share | None
    """Accuracy of the unsure arm's heads minus that of the arm of chance, on the same held-out prompts."""


class By(BaseModel):
    """A person who orders two answers in some way."""

    annotator: str
    rationale: str
    learned: bool
    """Whether the model was trained on this person's judgement, and would bet against it all the same."""


class Surprise(BaseModel):
    """Two answers to a prompt that people order as the reward model would not: of the prompt's pairs the least expected
    one."""

    number: int
    """Of the item in the queue."""
    prompt: str
    """The last message of the prompt."""
    better: str
    """The answer that people put above the other."""
    worse: str
    chance: float
    """What the model gives it that somebody orders the two like this."""
    by: list[By]


class Surprises(BaseModel):
    """How people order pairs beside what the reward model expects, the least expected first."""

    pairs: int
    """That people put in order, of answers that the queue asks about; two people's are two."""
    against: int
    """How many of them the model would have ordered the other way."""
    found: list[Surprise]
    prompts: list[str]
    """Ids of the prompts that are shown."""


class Effects(Protocol):
    """Every method takes seconds or minutes: ask through `Background`."""

    @property
    def ready(self) -> bool:
        """Whether there is a reward model now."""

    def key(self) -> str:
        """What changes when an answer may: the reward model, and the judgements that count."""

    def curve(self) -> list[Curve]:
        """One curve for people, one for simulated annotators; those there is nothing to measure of are left out."""

    def changed(self, name: str) -> Changed | None:
        """None where this person has no judgement that is trained on."""

    def arms(self) -> Arms:
        """Active choice beside chance."""

    def surprises(self) -> Surprises:
        """Where people and the reward model disagree most."""

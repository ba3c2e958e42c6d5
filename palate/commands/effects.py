"""What a run's reward model makes of the judgements, for the studio: computed when somebody asks, and the queue is told
what the model is unsure of. torch comes with the first question."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import sqlalchemy as sa

from palate import metrics
from palate.errors import PalateError
from palate.feedback import place
from palate.feedback.campaigns import Settings, settings
from palate.feedback.queue import RANDOM, UNSURE, Queue
from palate.feedback.store import Store
from palate.feedback.tables import ITEMS
from palate.recipe import Recipe
from palate.records import Judgement, Prompt, Response, read_jsonl
from palate.studio.effects import Arms, Changed, Curve, Surprises
from palate.workspace import Workspace, hashed

if TYPE_CHECKING:
    from palate.commands.taste import Taste

LOOK_AGAIN = 10.0
"""Seconds between two looks whether there is another reward model, or other answers."""


class Effects:
    """Of one run. Safe to use from several threads, of which one computes at a time."""

    def __init__(self, recipe: Recipe, workspace: Workspace, store: Store, name: str) -> None:
        self.recipe, self.workspace, self.store, self.name = recipe, workspace, store, name
        self._lock = threading.Lock()
        self._taste: tuple[str, Taste] | None = None
        self._curves: dict[bool, tuple[str, Curve | None]] = {}
        self._told = ""
        """Of which model and answers the queue knows how unsure the model is."""
        self._closed = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether there is a reward model: this run's, or the one of the run before it."""
        try:
            return self.recipe.reward is not None and self._source() is not None
        except PalateError:
            return False

    def key(self) -> str:
        """What changes when an answer may."""
        return f"{self._made_of()} {self.store.fingerprint(self._campaign())}"

    def curve(self) -> list[Curve]:
        """See palate/studio/effects.py."""
        from palate.commands import taste

        found = []
        with self._lock:
            every = self._judgements()
            for simulated in (False, True):
                ids = sorted(j.id for j in every if j.simulated == simulated)
                key = f"{self._made_of()} {hashed(ids)}"
                before = self._curves.get(simulated)
                if before is None or before[0] != key:  # simulated ones seldom change, and are many
                    before = (key, taste.curve(self._opened(), every, simulated=simulated))
                    self._curves[simulated] = before
                found.append(before[1])
        return [curve for curve in found if curve is not None]

    def changed(self, name: str) -> Changed | None:
        """See palate/studio/effects.py."""
        from palate.commands import taste

        with self._lock:
            return taste.changed(self._opened(), self._judgements(), name)

    def arms(self) -> Arms:
        """See palate/studio/effects.py."""
        from palate.commands import taste

        query = sa.select(ITEMS.c.prompt_id, ITEMS.c.arm).where(ITEMS.c.campaign == self._campaign())
        with self.store.reading("items") as connection:
            arm_of = {prompt: arm for prompt, arm in connection.execute(query)}
        with self._lock:
            return taste.arms(self._opened(), self._judgements(), arm_of, (UNSURE, RANDOM))

    def surprises(self) -> Surprises:
        """See palate/studio/effects.py."""
        from palate.commands import taste

        query = sa.select(ITEMS.c.prompt_id, ITEMS.c.number).where(ITEMS.c.campaign == self._campaign())
        with self.store.reading("items") as connection:
            numbers = {prompt: number for prompt, number in connection.execute(query)}
        with self._lock:
            return taste.surprises(self._opened(), self._judgements(), numbers)

    def watch(self) -> None:
        """Until it is closed, tell the queue what the reward model is unsure of, anew when there is another one."""
        while not self._closed.is_set():
            try:
                self.tell_the_queue()
            except PalateError as error:  # a run that is being changed this moment, a store that is busy
                metrics.say(f"the queue is not told what the reward model is unsure of: {error}")
            self._closed.wait(LOOK_AGAIN)

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()

    def tell_the_queue(self) -> bool:
        """Whether there was something to tell."""
        from palate.commands import taste

        if not self.ready or not self.workspace.has("samples") or (now := self._made_of()) == self._told:
            return False
        with self._lock:
            unsure = taste.unsure(self._opened())
        samples = self.workspace.read("samples")
        prompts = list(read_jsonl(samples / "prompts.jsonl", Prompt))
        responses = list(read_jsonl(samples / "responses.jsonl", Response))
        chosen = settings(self.store, self.name, Settings())
        Queue(self.store, self._campaign()).lay(
            prompts,
            responses,
            random_share=chosen.random_share,
            unsure={prompt.id: unsure[prompt.id] for prompt in prompts if prompt.id in unsure},
        )
        self._told = now
        return True

    def _source(self) -> Workspace | None:
        return self.workspace if self.workspace.has("reward") else self.workspace.before("reward")

    def _campaign(self) -> str:
        """Whose answers are ranked now; empty where a run has none of its own."""
        return place.campaign(self.workspace) if self.workspace.has("samples") else ""

    def _made_of(self) -> str:
        source = self._source()
        reward = source.manifest("reward")["digest"] if source is not None else ""
        samples = self.workspace.manifest("samples")["digest"] if self.workspace.has("samples") else ""
        return f"{reward} {samples}"

    def _opened(self) -> Taste:
        from palate.commands import taste

        now, source = self._made_of(), self._source()
        assert source is not None, "asked only where it is ready"
        if self._taste is None or self._taste[0] != now:
            self._taste = None  # two at once would be too much memory for large models
            self._taste = (now, taste.read(self.recipe, self.workspace, source))
        return self._taste[1]

    def _judgements(self) -> list[Judgement]:
        """All that stand: those of the reward model's snapshot, and those of the store since."""
        source = self._source()
        assert source is not None
        used = read_jsonl(source.read("rankings") / "judgements.jsonl", Judgement)
        every = {j.id: j for j in used}
        before = place.campaign(source) if source.has("samples") else ""
        for campaign in {before, self._campaign()} - {""}:
            every |= {j.id: j for j in self.store.judgements(campaign, include_superseded=True)}
        gone = {j.supersedes for j in every.values() if j.supersedes}
        return [j for j in every.values() if j.id not in gone and j.ranks]

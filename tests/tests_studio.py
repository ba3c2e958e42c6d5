"""What the tests of the studio put into a store."""

from __future__ import annotations

from palate.feedback.queue import Queue
from palate.feedback.store import Store
from palate.records import Prompt, Response, conversation

ADDRESS = "http://127.0.0.1:8484"
CAMPAIGN = "dinner:1"


def prompts(count: int = 6) -> list[Prompt]:
    return [
        Prompt(id=f"prompt-{p}", messages=conversation(f"Suggest dinner number {p}."), family=f"f{p}", skill="suggest")
        for p in range(count)
    ]


def responses(count: int = 6, answers: int = 4) -> list[Response]:
    """Each by a model whose name must not be told to whoever ranks."""
    return [
        Response(
            id=f"response-{p}-{a}-by-secret-model",
            prompt_id=f"prompt-{p}",
            text=f"Dish {a} for dinner {p}.",
            model=f"secret-model-{a}",
            checkpoint=f"secret-checkpoint-{a}",
            sampling={"temperature": 0.123 + a},
        )
        for p in range(count)
        for a in range(answers)
    ]


def fill(store: Store, campaign: str = CAMPAIGN, *, count: int = 6, answers: int = 4) -> None:
    """Prompts and answers, and the queue that asks about them."""
    store.add_prompts(prompts(count), campaign)
    store.add_responses(responses(count, answers), campaign)
    Queue(store, campaign).lay(prompts(count), responses(count, answers), random_share=0.3)

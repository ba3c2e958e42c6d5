"""Palate from Python: `import palate`, then `palate.run`, `palate.load`, `palate.score`, `palate.open_feedback`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from palate import flow, ranks
from palate import recipe as recipes
from palate.device import Device, open_device
from palate.errors import BadInput
from palate.feedback.store import Store, open_store
from palate.generate.engine import stream
from palate.generate.replies import score_all
from palate.generate.sampling import Sampling
from palate.generate.text import pieces
from palate.nn.transformer import LanguageModel
from palate.recipe import Hardware
from palate.records import Conversation, Message, conversation
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import Tokenizer
from palate.weights import folder as weights
from palate.workspace import POLICIES, Workspace


def run(
    recipe: str | Path,
    folder: str | Path | None = None,
    *,
    first: str | None = None,
    last: str | None = None,
    overrides: Iterable[str] = (),
) -> Workspace:
    """Run a recipe file into a run folder (runs/NAME when absent); what `palate run` does. Raises PalateError."""
    settings = recipes.load(Path(recipe), overrides)
    place = Path(folder) if folder else Path("runs") / settings.name
    if not ranks.leads():
        flow.follow()
        return Workspace(place)
    with flow.led(), Workspace(place).held():
        resolved, workspace = flow.open_run(settings, place)
        flow.run(resolved, workspace, first=first, last=last)
    return workspace


@dataclass(frozen=True)
class Assistant:
    """A language model and its tokenizer, ready to be asked."""

    model: LanguageModel
    tokenizer: Tokenizer
    device: Device

    def generate(
        self,
        text: str,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.7,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> str:
        """Go on with plain text, up to the first of the `stop` strings. temperature 0 is greedy; the same seed gives
        the same text. What the other numbers cut off: docs/generate.md."""
        ids = self.tokenizer.begin(text)
        sampling = self._sampling(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty)
        return "".join(self._pieces(ids, sampling, stop, seed)).strip()

    def chat(
        self,
        messages: str | Conversation | Sequence[dict[str, str]],
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.7,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> str:
        """The assistant's answer to a question or to a conversation that ends with the user's turn; options as in
        `generate`."""
        told = conversation(messages) if isinstance(messages, str) else _turns(messages)
        sampling = self._sampling(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty)
        return "".join(self._pieces(self.tokenizer.encode_prompt(told), sampling, stop, seed)).strip()

    def _sampling(
        self, max_new_tokens: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
    ) -> Sampling:
        return Sampling(
            max_new_tokens=max_new_tokens,
            stops=self.tokenizer.stops,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=penalty,
        )

    def _pieces(self, ids: list[int], sampling: Sampling, stop: Sequence[str], seed: int) -> Iterator[str]:
        room = self.model.shape.context
        if len(ids) >= room:
            raise BadInput(f"the prompt is {len(ids)} tokens, the model reads {room}.", "prompt", "Shorten it.")
        tokens = stream(self.model, ids, sampling, seed=seed, device=self.device)
        return pieces(tokens, self.tokenizer.decode, stop)


def _turns(messages: Sequence[Message | dict[str, str]]) -> Conversation:
    return tuple(m if isinstance(m, Message) else Message.from_json(m) for m in messages)


def load(folder: str | Path) -> Assistant:
    """The model in a folder of ours (runs/NAME/05-sft) or a supported Hugging Face folder; a run folder gives its
    newest model. Raises BadInput, Unsupported or MissingArtifact."""
    path = Path(folder)
    if not (path / "config.json").is_file() and (path / flow.RECIPE).is_file():
        workspace = Workspace(path)
        path = workspace.read(next((a for a in (*POLICIES, "sft") if workspace.has(a)), "base"))
    device = open_device(Hardware())
    model = device.put(weights.load_language_model(path)).eval()
    tokenizer = tokenizers.load(path)
    weights.fit_vocabulary(model, tokenizer.vocab, path)
    return Assistant(model, tokenizer, device)


def score(folder: str | Path, prompt: str | Conversation, answers: Sequence[str]) -> list[dict[str, float]]:
    """What the reward model in `folder` (a run, or its 08-reward) says of each answer: accuracy, helpfulness, safety,
    clarity and overall. Scores of one prompt are comparable; across prompts they are not."""
    path = Path(folder)
    if (path / flow.RECIPE).is_file():
        path = Workspace(path).read("reward")
    model, extra = weights.load_scalar_model(path)
    names, pooling = extra.get("labels"), extra.get("pooling")
    if pooling not in ("last", "mean") or not isinstance(names, list) or len(names) != model.score.out_features:
        raise BadInput(
            "config.json does not say how to pool and name its scores.",
            path,
            "Name a folder that `palate reward` made.",
        )
    tokenizer = tokenizers.load(path)
    device = open_device(Hardware())
    asked = conversation(prompt) if isinstance(prompt, str) else prompt
    ids = tokenizer.encode_prompt(asked)
    scores = score_all(
        device.put(model),
        [ids] * len(answers),
        [tokenizer.encode_reply(asked, answer) for answer in answers],
        pooling=pooling,
        pad=tokenizer.pad,
        device=device,
    )
    return [dict(zip(names, row, strict=True)) for row in scores.tolist()]


def open_feedback(url: str) -> Store:
    """The feedback store at a SQLAlchemy URL, to read and write judgements:
    `with palate.open_feedback(url) as store:`."""
    return open_store(url)

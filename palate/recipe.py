"""One typed recipe file: the whole life of a model, one section per stage, in stage order.

TOML -> frozen pydantic models. An unknown key is refused with a suggestion; a wrong value is refused with what was
expected; rules that span sections are checked at load. "Feature off" is an absent section. `--set a.b=c` is the only
override there is. Durations of training are in optimizer steps, so that a run can be repeated exactly.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from palate.errors import RecipeError
from palate.records import CRITERIA


class Section(BaseModel):
    """A table of the recipe: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Kitchen(Section):
    """The embedded world (design: "the kitchen"). Present only in recipes that use it as a source."""

    seed: int = 0
    """Seed of the world itself; the same seed gives the same bytes."""
    dishes: int = Field(120, ge=20, le=400)
    corpus_documents: int = Field(6000, ge=200)
    """Roughly how many raw documents the five sources hold, planted rubbish included."""


class Collect(Section):
    """Which texts become the corpus, and what is dropped from them."""

    sources: tuple[str, ...]
    """Folders or files; "kitchen" is the embedded world, told in the five kinds of source."""
    languages: tuple[str, ...] = ("en",)
    """ISO 639-1 codes that are kept; an empty list keeps everything."""
    min_words: int = Field(20, ge=1)
    """Shorter documents are dropped. Gopher (Rae et al. 2021) uses 50 for web pages; recipes are short."""
    near_duplicate: float = Field(0.8, gt=0.0, le=1.0)
    """Jaccard similarity of word 5-gram sets from which two documents count as the same."""
    max_documents: int | None = Field(None, ge=1)


class Tokenize(Section):
    """Byte-level BPE trained on the corpus."""

    vocab: int = Field(2048, ge=300, le=200_000)
    held_out: float = Field(0.02, gt=0.0, lt=0.5)
    """Share of the documents that no training step sees; bits per byte is measured on them."""
    max_train_bytes: int = Field(20_000_000, ge=1_000)
    """The BPE is trained on this much of the corpus at most; merges change little beyond it."""


class Model(Section):
    """Shape of the Transformer (LLaMA family: RoPE, RMSNorm, SwiGLU, grouped-query attention)."""

    layers: int = Field(ge=1, le=1_000)
    dim: int = Field(ge=8, le=65_536)
    heads: int = Field(ge=1, le=1_024)
    kv_heads: int | None = Field(None, ge=1)
    """Key/value heads; absent means as many as `heads`."""
    hidden: int | None = Field(None, ge=8, le=1_048_576)
    """Width inside the SwiGLU; absent means 8/3 dim, rounded up to a multiple of 32 (Shazeer 2020)."""
    context: int = Field(256, ge=16, le=1_048_576)
    rope_theta: float = Field(10_000.0, gt=0)
    tied: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(f"dim {self.dim} must be heads ({self.heads}) times an even number")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self


class Training(Section):
    """What every training loop has. Steps are optimizer steps."""

    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    peak_lr: float = Field(gt=0)
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    warmup_steps: int = Field(20, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    max_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this Euclidean norm."""
    micro_tokens: int = Field(16_384, ge=64)
    """Most tokens (padding included) in one forward pass, fewer where memory is small; what exceeds it is
    accumulated."""
    evaluate_every: int = Field(100, ge=1)
    save_every: int = Field(100, ge=1)


class Pretrain(Training):
    """How the base model is trained."""

    steps: int = Field(ge=1)
    batch_rows: int = Field(32, ge=1)
    """Rows of `model.context` tokens in one step."""


class Dial(Section):
    """One number instead of [model] and [pretrain]: they follow from it (docs/dial.md) and stand beside it in the run's
    recipe. With a size of your own (size, layers) [pretrain] may be given, with `minutes` [model] may."""

    size: Literal["nano", "micro", "tiny", "mini", "small", "medium", "base"] | None = None
    """A name for a number of layers."""
    layers: int | None = Field(None, ge=1, le=1_000)
    minutes: float | None = Field(None, gt=0, le=1e6)
    """Of pretraining on this machine, which is measured for a few seconds."""
    context: int = Field(256, ge=16, le=1_048_576)
    gave: tuple[Literal["model", "pretrain"], ...] = ()
    """Which sections followed from it. A run's own recipe has this; yours needs no such key."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(value is not None for value in (self.size, self.layers, self.minutes)) != 1:
            raise ValueError("turn it by one of size, layers and minutes")
        return self


class Base(Section):
    """An open model that takes the place of pretraining: a Hugging Face folder, or its id on the hub."""

    folder: str | None = None
    hub: str | None = None
    """For example "HuggingFaceTB/SmolLM2-135M". Naming one here is what allows a download (extra `hub`)."""
    revision: str = "main"
    """Branch, tag or commit on the hub. The commit that was taken is noted in 03-base/origin.json."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.folder is None) == (self.hub is None):
            raise ValueError('name a folder ("path") or a model on the hub ("org/name"), one of the two')
        return self


class Parent(Section):
    """The run that this one continues: its policy is the assistant here, whose answers are ranked anew."""

    run: str
    """Its folder."""
    policy: Literal["ppo", "dpo", "grpo", "rejection"] | None = None
    """Which of its policies; absent means the first it has, in this order."""


class Lora(Section):
    """SFT, reward model and PPO train low-rank adapters (Hu et al. 2021) beside the base's matrices, which stay as they
    are: little memory for gradients and optimizer. Without this section every weight is trained."""

    rank: int = Field(16, ge=1, le=4096)
    alpha: float = Field(32.0, gt=0)
    """Adapters count alpha / rank times."""


class Write(Section):
    """Where demonstrations and prompts come from."""

    demonstrations: tuple[str, ...]
    """JSONL files (messages; Alpaca and Dolly columns), "kitchen", or what people write in the studio ("people")."""
    prompts: tuple[str, ...] = ()
    """JSONL files of prompts, "kitchen" or "people"; when empty, the first user turns of the demonstrations are the
    prompts."""
    until: int | None = Field(None, ge=1)
    """With people: wait until this many of their demonstrations are accepted."""
    max_demonstrations: int | None = Field(None, ge=1)
    train_prompts: int | None = Field(None, ge=1)
    dev_prompts: int = Field(200, ge=1)
    test_prompts: int = Field(500, ge=1)
    max_characters: int | None = Field(None, ge=10)
    """Longer conversations are dropped and counted; absent keeps what fits the model's context."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "people" in self.demonstrations and self.until is None:
            raise ValueError('demonstrations = ["people"] needs until = N: how many demonstrations to wait for')
        return self


class Sft(Training):
    """Supervised fine-tuning on demonstrations; the loss is on assistant turns only."""

    steps: int = Field(ge=1)
    batch_rows: int = Field(32, ge=1)
    """Conversations in one step."""
    start: Literal["base", "sft"] = "base"
    """Which artifact it starts from; "sft" continues, which is how the control "SFT continued" is made."""


class Sample(Section):
    """K answers to every training prompt, for people to rank."""

    answers: int = Field(4, ge=2, le=16)
    prompts: int = Field(1000, ge=1)
    """How many train prompts are answered; all dev prompts are, too, for measuring the reward model."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(64, ge=1)


class Function(Section):
    """A Python function of your own as a scorer."""

    name: str
    """"rewards.py:brief" (file and function) or "package.module:brief"."""
    weight: float = 1.0
    """Of what it gives, on whatever scale; below 0 where less is better."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        place, _, function = self.name.rpartition(":")
        if not place.strip() or not function.isidentifier() or not self.name.isprintable():
            raise ValueError('write the name as "rewards.py:function" or "package.module:function"')
        if self.weight == 0:
            raise ValueError("with weight = 0 it would run for nothing; leave the table out")
        return self


class Verifier(Section):
    """Compares an answer with the right one, which the prompt has beside it: 1 or 0."""

    kind: Literal["number", "text"] = "number"
    """Its last number (GSM8K: the one after ####), or all its words."""
    weight: float = Field(1.0, gt=0)


class Judge(Section):
    """Asks a language model behind an OpenAI-compatible address for a grade from 1 to 10; the score is 0 to 1."""

    url: str
    """Up to /v1, for example "http://127.0.0.1:8000/v1"; prompts and answers are sent there."""
    model: str = Field(min_length=1)
    key_variable: str | None = None
    """The environment variable that holds the key. The key itself is in no file of Palate's."""
    rubric: str | None = Field(None, min_length=1)
    """What makes an answer good, in your words; absent means right, helpful, safe and clear."""
    weight: float = Field(1.0, gt=0)
    timeout_seconds: float = Field(60.0, gt=0, le=3_600)
    parallel: int = Field(4, ge=1, le=256)
    """Questions that are asked at the same time."""
    max_new_tokens: int = Field(256, ge=1)
    """Of one grade; a model that thinks aloud before it answers needs more."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        # What is wrong is said without the address: it may hold a key.
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError('this is no address; write one like "http://127.0.0.1:8000/v1"') from None
        if (
            parts.scheme not in ("http", "https")
            or not host
            or not url.isascii()
            or not url.isprintable()
            or " " in url
        ):
            raise ValueError('this is no address; write one like "http://127.0.0.1:8000/v1"')
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                "an address with a user, a key or a query is refused; name the key's variable in key_variable"
            )
        if parts.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError("leave /chat/completions off; it is added")
        return url.rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise ValueError("this is no name of an environment variable; the key itself does not belong in a recipe")
        return name


class Scoring(Section):
    """What an answer is worth beside or instead of the reward model; absent means the reward model alone. Policies are
    trained on the weighted sum, and [rank] by = ["scorers"] ranks by it (docs/scoring.md)."""

    learned: float = Field(1.0, ge=0)
    """Weight of the reward model's score. With 0 no reward model is needed, and no rankings."""
    function: Function | None = None
    verifier: Verifier | None = None
    judge: Judge | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.learned or self.function or self.verifier or self.judge):
            raise ValueError("learned = 0 leaves nothing to score with; add a function, verifier or judge")
        return self


class Rank(Section):
    """Who ranks: the simulated panel ("kitchen"), files of judgements, people ("people"), or what [scoring] names
    ("scorers")."""

    by: tuple[str, ...]
    annotators: int = Field(5, ge=1)
    """Guests on the simulated panel."""
    overlap: int = Field(1, ge=1)
    """Judgements per prompt. People are asked about those first that have too few."""
    until: int | None = Field(None, ge=1)
    """With people: wait until this many judgements of theirs are in the store. Without a number nobody waits."""
    shuffled: bool = False
    """Placebo control: ranks are permuted at random within their judgement, criterion scores over all of them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "people" in self.by and self.until is None:
            raise ValueError('by = ["people"] needs until = N: how many judgements to wait for')
        return self


class Reward(Training):
    """The reward model: a ranking loss on all pairs of a prompt, heads for the four criteria and overall."""

    epochs: int = Field(1, ge=1)
    batch_prompts: int = Field(16, ge=1)
    pooling: Literal["last", "mean"] = "mean"
    """Hidden state the heads read: the last token's, or the mean over the response's tokens."""
    annotators: Literal["agreement", "equal"] = "agreement"
    """How much a judgement counts: as its annotator agrees with the others, order bias taken out; or all alike."""
    criteria_weight: float = Field(0.25, ge=0)
    """Weight of the loss of the four criterion heads beside the overall head's."""
    weights: dict[str, float] | None = None
    """How PPO's score mixes the heads; absent means overall alone."""

    @field_validator("weights")
    @classmethod
    def _name_heads(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        heads = (*CRITERIA, "overall")
        for name in weights or ():
            if name not in heads:
                raise ValueError(f"{name!r} is no head of the reward model; it has {', '.join(heads)}")
        return weights


class Aligning(Section):
    """What every stage has that changes how the assistant answers. Constants: the page of each method in docs/."""

    max_new_tokens: int = Field(64, ge=1)
    temperature: float = Field(1.0, gt=0)
    """Divides the logits in sampling and in every log-prob alike."""
    micro_rows: int = Field(64, ge=1)
    """Most rows in one forward pass, fewer where memory is small."""
    policy_lr: float = Field(1e-4, gt=0)
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "linear"
    warmup_steps: int = Field(2, ge=0)
    max_norm: float = Field(1.0, gt=0)
    kl_budget: float | None = Field(None, gt=0)
    """Nats per reply between policy and SFT; above it the loop stops and keeps the last policy within it."""
    halt: bool = True
    """An alarm that answers got worse in themselves (docs/alarms.md) ends the training with the last policy without."""
    evaluate_every: int = Field(10, ge=1)
    save_every: int = Field(5, ge=1)

    @property
    def method(self) -> str:
        """The section's name, which is the stage's and the artifact's, too."""
        return type(self).__name__.lower()


class Online(Aligning):
    """A method that samples with the policy as it is and asks what the replies are worth, round after round."""

    rounds: int = Field(ge=1)
    rollout_prompts: int = Field(128, ge=2)
    epochs: int = Field(1, ge=1)
    """How often a round's replies are gone through."""
    minibatch_rows: int = Field(64, ge=1)
    missing_eos_penalty: float = Field(1.0, ge=0)
    """Standard deviations of the score that a reply loses when it does not end by itself."""
    gate: bool = True
    """Do not start unless best-of-K by the reward model beats a random answer on dev judgements."""


class Ppo(Online):
    """Proximal policy optimization against the reward model. Constants: docs/ppo.md says where each comes from."""

    epochs: int = Field(2, ge=1)
    critic_lr: float = Field(3e-4, gt=0)
    critic_warmup_rounds: int = Field(2, ge=0)
    """Rounds that train the critic alone."""
    kl_weight: float = Field(0.05, ge=0)
    clip: float = Field(0.2, gt=0)
    value_clip: float = Field(0.2, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    pretrain_weight: float = Field(0.0, ge=0)
    """Of the next-token loss on the text that the base was trained on (PPO-ptx): the policy keeps more of it."""


class Dpo(Aligning):
    """Direct preference optimization: the policy learns from the rankings themselves, without a reward model."""

    epochs: int = Field(1, ge=1)
    batch_prompts: int = Field(16, ge=1)
    annotators: Literal["agreement", "equal"] = "agreement"
    """How much a judgement counts, as in [reward]."""
    beta: float = Field(0.1, gt=0)
    """What a nat of log-ratio is worth in log-odds of being preferred: small drifts far, large stays close."""


class Grpo(Online):
    """Policy gradients where the answers to one prompt are each other's baseline: no critic."""

    answers: int = Field(4, ge=2)
    """Replies to each of the `rollout_prompts`."""
    baseline: Literal["group", "leave_one_out"] = "group"
    """group: (score - mean) / std, and the KL is a loss (GRPO). leave_one_out: score - mean of the others, and the KL
    is part of the score (RLOO)."""
    kl_weight: float = Field(0.05, ge=0)
    clip: float = Field(0.2, gt=0)


class Rejection(Online):
    """Rejection sampling: the best of K answers by the reward model become demonstrations, round after round."""

    answers: int = Field(4, ge=2)


class Fresh(Section):
    """People look at what the reward model likes most while a policy trains: `palate rank RUN --fresh`."""

    per_look: int = Field(8, ge=1)
    """Prompts queued at every evaluation, each with the policy's answer and the assistant's."""


class Controls(Section):
    """What a claim that RLHF helped is compared with: SFT continued for the same seconds, and a placebo."""

    sft_continued: bool = True
    placebo: bool = True


class Evaluate(Section):
    """Which numbers go into the report, on how many prompts."""

    temperatures: tuple[float, ...] = (0.0, 0.5, 0.7, 1.0)
    """Every model is read at each of these on dev; 0 is greedy. Its best one is used on test."""
    dev_prompts: int = Field(150, ge=1)
    test_prompts: int = Field(500, ge=1)
    best_of: int = Field(4, ge=2)
    task_items: int = Field(100, ge=1)
    max_new_tokens: int = Field(64, ge=1)


class Feedback(Section):
    """Where people's work lives: never inside a run."""

    store: str | None = None
    """SQLAlchemy URL; absent means the SQLite file feedback.sqlite beside the runs folder."""


class Hardware(Section):
    """What is measured on the machine, once, and then frozen in the resolved recipe."""

    device: Literal["cpu", "cuda", "mps"] | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of matrices while they work; what is trained and saved has a float32 master."""
    threads: int | None = Field(default=None, ge=1, le=4_096)
    """Of all processes on a machine together."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Memory of the device in GiB; micro-batches take half of it at most."""
    compile: bool | None = None
    """Whether networks' blocks are compiled: a fifth faster after half a minute (docs/performance.md)."""
    shard: bool | None = None
    """Whether several processes (docs/several-devices.md) each hold a part of the model that is trained. Absent: when
    it does not fit otherwise. What comes out is the same, so a run may go on with another choice."""


_LAID_OUT = {"shard"}
"""Keys that say where the work is done, not what comes out."""


class Recipe(Section):
    """A whole recipe. Sections of stages that are absent are stages that do not run."""

    name: str = "palate"
    seed: int = Field(0, ge=-(2**63), lt=2**63)
    kitchen: Kitchen | None = None
    collect: Collect | None = None
    tokenize: Tokenize | None = None
    dial: Dial | None = None
    model: Model | None = None
    pretrain: Pretrain | None = None
    base: Base | None = None
    parent: Parent | None = None
    lora: Lora | None = None
    write: Write | None = None
    sft: Sft | None = None
    sample: Sample | None = None
    scoring: Scoring | None = None
    rank: Rank | None = None
    reward: Reward | None = None
    ppo: Ppo | None = None
    dpo: Dpo | None = None
    grpo: Grpo | None = None
    rejection: Rejection | None = None
    fresh: Fresh | None = None
    controls: Controls | None = None
    evaluate: Evaluate | None = None
    feedback: Feedback = Feedback()
    hardware: Hardware = Hardware()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not name.isprintable() or "/" in name or name in ("", ".", "..") or len(name) > 100:
            raise ValueError("the run folder is called like this: 1 to 100 printable characters without a slash")
        return name

    @model_validator(mode="after")
    def _has_one_base(self) -> Self:
        if self.base and (self.pretrain or self.dial):
            other = "pretrain" if self.pretrain else "dial"
            raise ValueError(f"[base] and [{other}] both make the base model; leave one out")
        if self.parent:
            made = ("collect", "tokenize", "dial", "pretrain", "base", "write", "sft")
            if twice := next((name for name in made if getattr(self, name)), None):
                raise ValueError(f"[parent] brings what [{twice}] makes; leave one out")
            if self.controls and self.controls.sft_continued:
                raise ValueError(
                    "controls.sft_continued continues SFT on the demonstrations, and with [parent] the assistant is a "
                    "policy already; set it to false"
                )
        if self.dial and not self.tokenize:
            raise ValueError("[dial] needs a [tokenize] section: the vocabulary is part of a model's size")
        if self.dial:
            own = "pretrain" if self.dial.minutes else "model"
            if getattr(self, own) and own not in self.dial.gave:
                raise ValueError(f"[{own}] says what [dial] is there to find; leave one out")
        if self.pretrain and not (self.model or self.dial):
            raise ValueError("[pretrain] needs a [model] section that says the shape, or a [dial]")
        return self

    @model_validator(mode="after")
    def _across(self) -> Self:
        for section, key, names in (
            ("collect", "sources", self.collect.sources if self.collect else ()),
            ("write", "demonstrations", self.write.demonstrations if self.write else ()),
            ("write", "prompts", self.write.prompts if self.write else ()),
            ("rank", "by", self.rank.by if self.rank else ()),
        ):
            if "kitchen" in names and self.kitchen is None:
                raise ValueError(f'{section}.{key} names "kitchen", so the recipe needs a [kitchen] section')
        for name in ("pretrain", "sft", "reward"):
            part = getattr(self, name)
            steps = getattr(part, "steps", None)
            if steps is not None and part.warmup_steps >= steps:
                raise ValueError(
                    f"{name}.warmup_steps is {part.warmup_steps} but {name}.steps is {steps}: the learning rate "
                    f"would never reach its peak; set warmup_steps below {steps}"
                )
        planned, section = (self.model, "model") if self.model else (self.dial, "dial")
        if planned:
            for name in ("sample", "ppo", "dpo", "grpo", "rejection", "evaluate"):
                part = getattr(self, name)
                if part is not None and part.max_new_tokens >= planned.context:
                    raise ValueError(
                        f"{name}.max_new_tokens is {part.max_new_tokens}, which leaves no room for a prompt in "
                        f"{section}.context = {planned.context}"
                    )
        policies = self.ppo or self.dpo or self.grpo or self.rejection
        if self.controls and not ((self.sft or self.parent) and policies):
            raise ValueError(
                "[controls] compares with a policy, so it needs [sft] and one of [ppo], [dpo], [grpo] and [rejection]"
            )
        return self

    @model_validator(mode="after")
    def _scored(self) -> Self:
        scoring = self.scoring
        ranks = scoring and (scoring.function or scoring.verifier or scoring.judge)
        if self.rank and "scorers" in self.rank.by and not ranks:
            raise ValueError('rank.by names "scorers": the recipe needs [scoring] with a function, verifier or judge')
        if self.controls and self.controls.placebo and scoring and not scoring.learned:
            raise ValueError(
                "controls.placebo shuffles rankings, which with scoring.learned = 0 nobody reads; set it to false"
            )
        if self.controls and self.controls.placebo and not self.rank:
            raise ValueError("controls.placebo shuffles rankings, so it needs [rank]; add it or set placebo to false")
        return self

    def section_hash_input(self, names: Iterable[str]) -> dict[str, Any]:
        """What a stage depends on: the named sections as plain values, and the seed."""
        values: dict[str, Any] = {"seed": self.seed}
        for name in names:
            part = getattr(self, name)
            values[name] = part.model_dump(mode="json", exclude=_LAID_OUT) if part is not None else None
        return values


def load(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in the TOML file `path` with `overrides` ("section.key=value") applied. Raises RecipeError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe. `palate init` writes one to start from.") from None
    except IsADirectoryError:
        raise RecipeError(f"{path} is a folder; name a recipe file (TOML).") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: byte {error.start} is not UTF-8. Save the recipe as UTF-8 text.") from None
    return parse(text, str(path), overrides)


def parse(text: str, where: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe written in `text`; `where` names it in errors. Raises RecipeError."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets nested as deep
        raise RecipeError(f"{where}: not valid TOML: {error}.") from None
    for override in overrides:
        _override(values, override)
    _refuse_unknown(Recipe, values, where)
    try:
        return Recipe.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise RecipeError(_first(error, where)) from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: a value cannot be read: {error}.") from None


def _override(values: dict[str, Any], override: str) -> None:
    path, equals, raw = override.partition("=")
    if not equals or not path.strip():
        raise RecipeError(f"--set {override}: write it as section.key=value.")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):
        value = raw.strip()  # --set rank.by=people: a bare word is a string
    *tables, key = path.strip().split(".")
    table = values
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: {name} is not a section.")
    table[key] = value


def _refuse_unknown(kind: type[BaseModel], values: Mapping[str, Any], where: str, prefix: str = "") -> None:
    for key, value in values.items():
        if key not in kind.model_fields:
            near = difflib.get_close_matches(key, kind.model_fields, n=1)
            hint = f"Did you mean {prefix}{near[0]}?" if near else f"Keys here: {', '.join(sorted(kind.model_fields))}."
            raise RecipeError(f"{where}: {prefix}{key} is not a recipe key. {hint}")
        inner = _section_of(kind.model_fields[key].annotation)
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(inner, value, where, f"{prefix}{key}.")


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _first(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{where}: {place} is required and has no default. Add it to the recipe."
    if first["type"] == "value_error":
        return f"{where}: {place + ': ' if place else ''}{message}."
    return f"{where}: {place} = {first['input']!r}: {message.lower()}."


def dump(recipe: Recipe) -> str:
    """The recipe as TOML with every default written out; `parse(dump(r)) == r`."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    lines = [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += ["", f"[{key}]"] + [f"{name} = {_toml(inner)}" for name, inner in value.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, str):
        # TOML's basic strings follow JSON's but for DEL, which JSON leaves bare.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)

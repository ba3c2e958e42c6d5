"""Games whose best play is known, for PPO's own loop: tiny networks, rewards without text, no run folder."""

import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palate import metrics
from palate.align.limit import Limit
from palate.align.players import Players
from palate.align.rollout import sampling
from palate.align.session import Session
from palate.batches.replies import Replies, lay_out
from palate.device import Device, generator, seeds
from palate.generate.engine import generate
from palate.generate.replies import reply_logp
from palate.metrics import Metrics
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, ScalarModel, Trunk, initialise
from palate.recipe import Grpo, Online, Ppo, Rejection
from palate.stages import grpo, ppo, rejection
from palate.train.update import Learner, update
from palate.weights.folder import trunk_copy

CPU = Device("cpu", torch.float32)
PAD = 0


def language_model(shape: Shape, seed: object) -> LanguageModel:
    """A fresh network."""
    model = LanguageModel(Trunk(shape))
    initialise(model, shape, generator(seed, "weights"))
    return model


def models(
    policy: LanguageModel, reward: Callable[[Replies], Tensor], *, stops: Sequence[int], **scale: float
) -> ppo.Models:
    """PPO's models around `policy`: the reference is a copy of it, the critic starts from its trunk and says 0."""
    reference = LanguageModel(trunk_copy(policy.trunk))
    reference.load_state_dict(policy.state_dict())
    critic = ScalarModel(trunk_copy(policy.trunk), 1)
    torch.nn.init.zeros_(critic.score.weight)
    return ppo.Models(policy, reference.requires_grad_(False), reward, stops, PAD, **scale, critic=critic)


def learner(model: torch.nn.Module) -> Learner:
    """With the optimizer of the stage."""
    return Learner.make("adamw", model, CPU, weight_decay=0.0)


def play(
    players: ppo.Models, prompts: Sequence[Sequence[int]], settings: Ppo, folder: Path, seed: int
) -> list[dict[str, Any]]:
    """PPO by the loop of the stage; the lines of its log."""
    log = Metrics(folder / "ppo.jsonl")
    policy = learner(players.policy)
    session = Session(seed, log, Limit(policy, settings.kl_budget))
    ppo.train(policy, learner(players.critic), players, prompts, settings, CPU, session)
    return metrics.read(log.path)


def play_in_groups(
    players: Players, prompts: Sequence[Sequence[int]], settings: Grpo | Rejection, folder: Path, seed: int
) -> list[dict[str, Any]]:
    """The same without a critic."""
    log = Metrics(folder / f"{settings.method}.jsonl")
    policy = learner(players.policy)
    session = Session(seed, log, Limit(policy, settings.kl_budget))
    if isinstance(settings, Grpo):
        grpo.train(policy, players, prompts, settings, CPU, session)
    else:
        rejection.train(policy, players, prompts, settings, CPU, session)
    return metrics.read(log.path)


def mean_reward(players: Players, prompts: Sequence[Sequence[int]], settings: Online, answers: int) -> float:
    """Mean reward of `answers` fresh replies to each prompt, sampled at the temperature of training."""
    replies = generate(
        players.policy, prompts, sampling(settings, players.stops), seeds=seeds(len(prompts), "measured"),
        device=CPU, answers=answers,
    )  # fmt: skip
    asked = [prompt for prompt in prompts for _ in range(answers)]
    laid = lay_out(asked, [reply.ids for some in replies for reply in some], pad=PAD)
    return float(players.reward(laid).mean())


# --- a bandit -------------------------------------------------------------------------------------------------------

WANTED, END, BANDIT_TOKENS = 5, 2, 8
BANDIT_SHAPE = Shape(vocab=16, layers=1, dim=16, heads=2, kv_heads=2, hidden=32, context=16)
BANDIT_PROMPTS = [[1]] * 32


def wanted_share(replies: Replies) -> Tensor:
    """Wanted tokens per token there was room for: at most 1, by a reply of nothing else that never ends."""
    return ((replies.targets == WANTED) * replies.mask).sum(dim=1) / BANDIT_TOKENS


# --- random walks ---------------------------------------------------------------------------------------------------

NODES, GOAL, WALK = 21, 0, 10
WALK_SHAPE = Shape(vocab=NODES + 1, layers=1, dim=32, heads=2, kv_heads=2, hidden=64, context=16)


@dataclass(frozen=True)
class Graph:
    """Directed; node n is token n + 1, because 0 is padding. edges[n]: where a walk may go from n."""

    edges: tuple[tuple[int, ...], ...]
    shortest: tuple[tuple[int, ...], ...]
    """A shortest path from each node to the goal, as nodes, both ends counted."""

    def optimality(self, replies: Replies) -> Tensor:
        """trlx's reward (CarperAI, "randomwalks"): (WALK - nodes on the path) / (WALK - nodes on the shortest path), 0
        for a walk that takes a step there is no edge for or does not reach the goal."""
        return torch.tensor([self._worth([i - 1 for i in row if i != PAD]) for row in replies.ids.tolist()])

    def _worth(self, walk: list[int]) -> float:
        valid = all(after in self.edges[node] for node, after in itertools.pairwise(walk))
        if not valid or walk[-1] != GOAL:
            return 0.0
        return (WALK - len(walk)) / (WALK - len(self.shortest[walk[0]]))


def graph(seed: object) -> Graph:
    """Every edge there is with probability 0.1, drawn again until the goal can be reached from everywhere in time."""
    rng = random.Random(f"graph {seed}")
    while True:
        edges = tuple(tuple(b for b in range(NODES) if b != a and rng.random() < 0.1) for a in range(NODES))
        shortest: dict[int, tuple[int, ...]] = {GOAL: (GOAL,)}
        queue = deque([GOAL])
        while queue:
            node = queue.popleft()
            for before in range(NODES):
                if node in edges[before] and before not in shortest:
                    shortest[before] = (before, *shortest[node])
                    queue.append(before)
        if len(shortest) == NODES and max(map(len, shortest.values())) < WALK:
            return Graph(edges, tuple(shortest[node] for node in range(NODES)))


def walker(world: Graph, seed: object, *, walks: int = 1000, steps: int = 60, rows: int = 100) -> LanguageModel:
    """A language model of random walks: they end at the goal or after WALK nodes."""
    rng = random.Random(f"walks {seed}")
    starts, rests = [], []
    for _ in range(walks):
        walk = [rng.randrange(1, NODES)]
        while walk[-1] != GOAL and len(walk) < WALK:
            walk.append(rng.choice(world.edges[walk[-1]]))
        starts.append([walk[0] + 1])
        rests.append([node + 1 for node in walk[1:]])
    laid = lay_out(starts, rests, pad=PAD)
    model = language_model(WALK_SHAPE, seed)
    student = learner(model)

    def objective(part: Replies) -> tuple[Tensor, Tensor]:
        return -reply_logp(model, part, temperature=1.0).sum(), part.mask.sum()

    for step in range(steps):
        chosen = torch.randint(walks, (rows,), generator=generator(seed, "batch", step))
        lr = 1e-2 * min(1.0, 2 * (1 - step / steps))
        update(student, [laid.rows(chosen)], objective, lr=lr, max_norm=1.0, name=f"walks {step}")
    return model

"""An open model through the whole recipe: recipes/align.toml on small folders of random weights."""

import dataclasses
import datetime
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_open import people, published, small

from palate import flow
from palate import recipe as recipes
from palate.align.players import open_assistant, open_base, open_reward
from palate.device import Device
from palate.errors import BadInput, PalateError, RecipeError, Unsupported
from palate.metrics import read
from palate.nn import lora
from palate.recipe import Recipe
from palate.records import Demonstration, Response, conversation, read_jsonl
from palate.stages import evaluate, ppo
from palate.text import templates
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import OpenTokenizer
from palate.train import resume
from palate.weights import adapter, hub
from palate.weights import folder as weights
from palate.workspace import Workspace

ALIGN = Path(__file__).parent.parent.parent / "recipes" / "align.toml"
IDS = torch.randint(1, 250, (3, 40), generator=torch.Generator().manual_seed(0))
CPU = Device("cpu", torch.float32)
ROWS = 7
"""How many ids more than its tokenizer the model has."""


def recipe(place: Path, base: Path, *more: str) -> Recipe:
    return recipes.load(ALIGN, [*small(base, *people(place)), *more])


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Workspace]:
    place = tmp_path_factory.mktemp("align")
    base = published(place / "model", "qwen2", extra_rows=ROWS)
    resolved, workspace = flow.open_run(recipe(place, base, "controls.placebo=false"), place / "run")
    flow.run(resolved, workspace)
    return resolved, workspace


def test_the_shipped_recipe_is_a_recipe() -> None:
    shipped = recipes.load(ALIGN)
    assert shipped.base and shipped.lora and shipped.pretrain is None
    assert [stage.name for stage in flow.wanted(shipped)] == [
        "adopt", "write", "sft", "sample", "rank", "reward", "ppo", "evaluate",
    ]  # fmt: skip


def test_base_is_the_folder_with_a_pad_of_its_own(aligned: tuple[Recipe, Workspace]) -> None:
    settings, workspace = aligned
    assert settings.base and settings.base.folder
    source, base = Path(settings.base.folder), workspace.read("base")
    assert (base / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    tokenizer = tokenizers.load(base)
    assert tokenizer.pad not in tokenizer.stops and tokenizer.end in tokenizer.stops
    config = json.loads((base / "config.json").read_text())
    assert config["palate"]["known_ids"] == tokenizer.vocab == config["vocab_size"] - ROWS
    origin = json.loads((base / adapter.ORIGIN).read_text())
    assert (origin["source"], origin["chat_template"], origin["family"]) == (str(source), "its own", "qwen2")
    messages = conversation("Suggest a dinner.", "Try the stew!")
    assert tokenizer.encode_chat(messages) == tokenizers.load(source).encode_chat(messages)


def test_nothing_is_said_with_ids_that_no_token_has(aligned: tuple[Recipe, Workspace]) -> None:
    _, workspace = aligned
    vocab = tokenizers.load(workspace.read("base")).vocab
    model = weights.load_language_model(workspace.read("sft"))
    assert model(IDS).shape[-1] == vocab
    model.head.known = None
    assert int(model(IDS).argmax(dim=-1).max()) >= vocab, "so that this tests something"
    said = [r.token_ids for r in read_jsonl(workspace.read("samples") / "responses.jsonl", Response)]
    assert said and max(map(max, said)) < vocab


@pytest.mark.parametrize(("artifact", "scorer"), [("sft", False), ("ppo", False), ("reward", True)])
def test_what_is_published_is_base_plus_adapters(
    artifact: str, scorer: bool, aligned: tuple[Recipe, Workspace]
) -> None:
    _, workspace = aligned
    base: Any = weights.load_language_model(workspace.read("base"))
    whole: Any = weights.load_language_model(workspace.read(artifact)) if not scorer else None
    if scorer:
        whole, _ = weights.load_scalar_model(workspace.read(artifact))
        base = whole.on(base.trunk)
    before = base(IDS)
    adapted = adapter.beside(base, workspace.read(artifact) / "adapter")
    torch.testing.assert_close(adapted(IDS), whole(IDS), atol=1e-5, rtol=1e-5)
    assert float((whole(IDS) - before).abs().max().detach()) > 1e-4, "it learned something"
    config = json.loads((workspace.read(artifact) / "adapter" / adapter.CONFIG).read_text())
    assert (config["r"], config["task_type"]) == (4, "SEQ_CLS" if scorer else "CAUSAL_LM")
    frozen = {n: p for n, p in base.named_parameters() if n.split(".")[-2] not in ("qkv", "out", "gate_up", "down")}
    assert all(torch.equal(p, dict(whole.named_parameters())[n]) for n, p in frozen.items())


def test_ppo_begins_at_the_assistant(aligned: tuple[Recipe, Workspace]) -> None:
    """Policy and reference are the same numbers until the policy learns: KL 0 and ratios 1 to the last bit."""
    _, workspace = aligned
    rounds = read(workspace.logs / "ppo.jsonl")
    assert [line["kl"] for line in rounds[:2]] == [0.0, 0.0], "the first round trains the critic alone"
    assert rounds[1]["first_ratio_error"] == 0.0 and rounds[2]["kl"] != 0.0


def test_four_networks_share_one_base(aligned: tuple[Recipe, Workspace]) -> None:
    recipe, workspace = aligned
    shared = open_base(recipe, workspace)
    reward, _ = open_reward(workspace, shared)
    four = (open_assistant(workspace, shared), open_assistant(workspace, shared), ppo.critic_from(reward), reward)
    storages = {p.data_ptr() for model in four for p in model.parameters() if not p.requires_grad}
    (base,) = [weights.load_language_model(workspace.read("base"))]
    assert len(storages) == len(list(base.parameters()))
    learning = [{p.data_ptr() for p in model.parameters() if p.requires_grad} for model in four]
    assert len(set().union(*learning)) == sum(map(len, learning)), "what learns is nobody else's"
    policy, reference, critic, reward = four
    assert torch.equal(policy(IDS), reference(IDS))
    assert torch.equal(critic.trunk(IDS), reward.trunk(IDS)) and not torch.equal(policy.trunk(IDS), reward.trunk(IDS))


def test_other_tools_read_it(aligned: tuple[Recipe, Workspace]) -> None:
    transformers = pytest.importorskip("transformers")
    _, workspace = aligned
    policy = workspace.read("ppo")
    model = transformers.AutoModelForCausalLM.from_pretrained(policy).eval()
    ours = weights.load_language_model(policy)
    with torch.no_grad():
        theirs = model(IDS).logits[..., : ours.head.known]
    torch.testing.assert_close(ours(IDS), theirs, atol=1e-4, rtol=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(policy)
    mine = tokenizers.load(policy)
    asked = [{"role": "user", "content": "Suggest a dinner."}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert ids == mine.encode_prompt(conversation("Suggest a dinner."))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (mine.pad, mine.eos)
    assert model.generation_config.eos_token_id == list(mine.stops)
    if importlib.util.find_spec("peft"):
        import peft

        base = transformers.AutoModelForCausalLM.from_pretrained(workspace.read("base"))
        read_by_peft = peft.PeftModel.from_pretrained(base, policy / "adapter").eval()
        with torch.no_grad():
            torch.testing.assert_close(ours(IDS), read_by_peft(IDS).logits[..., : ours.head.known], atol=1e-4, rtol=0)


def test_the_report_has_what_there_is(aligned: tuple[Recipe, Workspace]) -> None:
    _, workspace = aligned
    report = json.loads((workspace.read("report") / "report.json").read_text())
    assert report["judged_by"] == "learned reward" and "bits_per_byte" not in report
    assert set(report["stages"]) >= {"adopt", "sft", "reward", "ppo"} and "sft_continued" in report
    page = (workspace.read("report") / "report.html").read_text()
    assert "collection kept" not in page and "Bits per byte" not in page


def test_an_open_model_is_asked_as_it_was_trained(
    aligned: tuple[Recipe, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came with a chat template in chats, one that did not as a text to go on with."""
    settings, workspace = aligned
    bench = evaluate._bench(settings, workspace, CPU)
    base = weights.load_language_model(workspace.read("base"))
    answer, asked = evaluate.Bench.answer, []

    def noted(*arguments: Any, plain: bool = False, **more: Any) -> Any:
        asked.append(plain)
        return answer(*arguments, plain=plain, **more)

    monkeypatch.setattr(evaluate.Bench, "answer", noted)
    for chats in (bench.base_chats, False):
        asked.clear()
        evaluate._compare(dataclasses.replace(bench, base_chats=chats), {"base": base})
        assert set(asked) == {not chats}
    assert bench.base_chats


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_adapters_go_on_after_a_kill_as_if_nothing_had_been(
    stage: str, aligned: tuple[Recipe, Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, workspace = aligned
    shutil.copytree(workspace.folder, tmp_path / "run")
    again = Workspace(tmp_path / "run")
    artifact = {"ppo": "ppo", "sft": "sft", "reward": "reward"}[stage]
    shutil.rmtree(again.path(artifact))
    save = resume.save

    def killed(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            flow.run_stage(stage, settings, again)
    state = torch.load(again.path(artifact).with_name(again.path(artifact).name + ".partial") / resume.FILE)
    for told in state["learners"].values():
        assert all(name.endswith((".A", ".B")) or name == "score.weight" for name in told["weights"])
    flow.run_stage(stage, settings, again)
    assert again.manifest(artifact)["digest"] == workspace.manifest(artifact)["digest"]


def test_all_weights_can_learn_instead(tmp_path: Path) -> None:
    """No [lora], a template that asks for the date, BOS, and no PAD but one that waits unnamed."""
    base = published(tmp_path / "model", "llama3")
    values = recipe(tmp_path, base, "sft.peak_lr=1e-3", "reward.peak_lr=1e-3", "ppo.policy_lr=1e-4")
    resolved, workspace = flow.open_run(values.model_copy(update={"lora": None, "evaluate": None}), tmp_path / "run")
    flow.run(resolved, workspace)
    assert not (workspace.read("sft") / "adapter").exists()
    one, two = (weights.load_language_model(workspace.read(a)).state_dict() for a in ("base", "ppo"))
    assert all(not torch.equal(one[name], two[name]) for name in one)
    tokenizer = tokenizers.load(workspace.read("ppo"))
    today = json.loads((workspace.read("base") / "tokenizer_config.json").read_text())["palate_today"]
    shown = datetime.date.fromisoformat(today).strftime("%d %b %Y")
    assert f"Today: {shown}" in tokenizer.render(conversation("a"))
    assert tokenizer.bos is not None and tokenizer.encode_prompt(conversation("a")).count(tokenizer.bos) == 1


def test_a_base_model_without_template_or_pad_gets_both(tmp_path: Path) -> None:
    """GPT-2's folder: one special token that is BOS, EOS and everything, and no row left for another."""
    source = published(tmp_path / "model", "gpt2")
    resolved, workspace = flow.open_run(recipe(tmp_path, source), tmp_path / "run")
    flow.run(resolved, workspace, last="sample")
    before, base = tokenizers.load(source), workspace.read("base")
    tokenizer = tokenizers.load(base)
    assert isinstance(tokenizer, OpenTokenizer) and tokenizer.template.source == templates.PLAIN
    assert json.loads((base / adapter.ORIGIN).read_text())["chat_template"] == "plain"
    assert tokenizer.pad == before.vocab == tokenizer.vocab - 1 and tokenizer.pad not in tokenizer.stops
    assert tokenizer.end == tokenizer.eos == before.eos
    assert (
        tokenizer.render(conversation("Hi", "Yes.", "And")) == "User: Hi\n\nAssistant: Yes.<|endoftext|>User: And\n\n"
    )
    old, new = weights.load_language_model(source), weights.load_language_model(base)
    rows = old.trunk.embed.weight
    assert torch.equal(new.trunk.embed.weight[:-1], rows)
    torch.testing.assert_close(new.trunk.embed.weight[-1], rows.mean(dim=0))
    torch.testing.assert_close(new(IDS)[..., :-1], old(IDS), atol=1e-5, rtol=0)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(workspace.read("sft"))
    assert (theirs.pad_token_id, theirs.eos_token_id) == (tokenizer.pad, tokenizer.eos)
    shown = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert shown == "User: Hi\n\nAssistant:"


def test_conversations_that_the_template_does_not_take_are_counted(tmp_path: Path) -> None:
    base = published(tmp_path / "model", "mistral")
    demonstrations, _ = people(tmp_path)
    with demonstrations.open("a") as file:
        for number in range(3):
            turns = [("system", "Be good."), ("user", f"Hello {number}"), ("assistant", "Hi")]
            file.write(json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]}) + "\n")
    values = recipes.load(ALIGN, small(base, demonstrations, tmp_path / "comparisons.jsonl"))
    resolved, workspace = flow.open_run(values, tmp_path / "run")
    flow.run(resolved, workspace, last="write")
    report = json.loads((workspace.read("demonstrations") / "report.json").read_text())
    (reason,) = report["dropped"]
    assert "Roles must alternate" in reason and report["dropped"][reason] == 3
    kept = list(read_jsonl(workspace.read("demonstrations") / "demonstrations.jsonl", Demonstration))
    assert kept and all(d.messages[0].role == "user" for d in kept)


# --- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one model at one commit, laid out as huggingface_hub does it, and no way out."""
    constants = pytest.importorskip("huggingface_hub.constants")
    folder = tmp_path / "hub" / "models--org--small"
    commit = "0123456789abcdef0123456789abcdef01234567"
    files = published(tmp_path / "model", "smollm2")
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "blobs").mkdir()
    for number, path in enumerate(sorted(files.iterdir())):
        blob = folder / "blobs" / f"{number:040x}"
        shutil.copyfile(path, blob)
        (folder / "snapshots" / commit / path.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def named(place: Path, revision: str, name: str = "org/small") -> Recipe:
    values = recipe(place, place / "model")
    base = recipes.Base(hub=name, revision=revision)
    return values.model_copy(update={"base": base})


@pytest.mark.parametrize("revision", ["main", "0123456789abcdef0123456789abcdef01234567"])
def test_a_hub_id_is_taken_from_the_cache(revision: str, cache: Path, tmp_path: Path) -> None:
    resolved, workspace = flow.open_run(named(tmp_path, revision), tmp_path / "run")
    flow.run(resolved, workspace, last="sft")
    origin = json.loads((workspace.read("base") / adapter.ORIGIN).read_text())
    assert (origin["source"], origin["revision"]) == ("org/small", "0123456789abcdef0123456789abcdef01234567")
    assert not (workspace.read("base") / "model.safetensors").is_symlink()
    config = json.loads((workspace.read("sft") / "adapter" / adapter.CONFIG).read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/small", origin["revision"])


def test_what_the_hub_cannot_give_is_one_line(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, revision in (("org/small", "v2"), ("org/other", "main"), ("not an id", "main")):
        with pytest.raises(BadInput, match="on the hub: cannot be had") as caught:
            hub.fetch(name, revision)
        assert "\n" not in str(caught.value)
    next(cache.glob("snapshots/*/model.safetensors")).unlink()
    with pytest.raises(BadInput, match="cannot be had"):  # a part of it is not it
        hub.fetch("org/small", "main")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(Unsupported, match=r"pip install 'palate\[hub\]'"):
        hub.fetch("org/small", "main")
    resolved, workspace = flow.open_run(recipe(tmp_path, tmp_path / "model"), tmp_path / "run")
    flow.run(resolved, workspace, last="adopt")  # a folder needs none of it
    assert json.loads((workspace.read("base") / adapter.ORIGIN).read_text())["revision"] is None


# --- what is refused -------------------------------------------------------------------------------------------------


def test_folders_that_are_refused(tmp_path: Path) -> None:
    def outcome(folder: Path) -> str:
        with pytest.raises(PalateError) as caught:
            resolved, workspace = flow.open_run(recipe(tmp_path, folder), tmp_path / "run")
            flow.run(resolved, workspace, last="adopt")
        assert str(folder) in str(caught.value)
        return str(caught.value)

    assert "no such folder" in outcome(tmp_path / "nowhere")
    good = published(tmp_path / "good", "qwen2")
    for lost, told in (("tokenizer.json", "no such file"), ("config.json", "no config.json"),
                       ("model.safetensors", "cannot be read")):  # fmt: skip
        folder = tmp_path / lost
        shutil.copytree(good, folder)
        (folder / lost).unlink()
        assert told in outcome(folder)
    (tmp_path / "model.safetensors" / "pytorch_model.bin").write_bytes(b"")
    assert "pickle" in outcome(tmp_path / "model.safetensors")
    short = tmp_path / "short"
    shutil.copytree(good, short)
    config = json.loads((short / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {str(tokenizers.load(good).vocab): {"content": "<|late|>"}}
    (short / "tokenizer_config.json").write_text(json.dumps(config))
    assert "do not belong together" in outcome(short)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("[base]", "one of the two"),
        ('[base]\nfolder = "a"\nhub = "b/c"', "one of the two"),
        (
            '[base]\nfolder = "a"\n[model]\nlayers=1\ndim=8\nheads=1\n[pretrain]\nsteps=50\npeak_lr=1e-3',
            "leave one out",
        ),
        ('[base]\nfolder = "a"\n[lora]\nrank = 0', "lora.rank"),
    ],
)
def test_recipes_that_are_refused(section: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        recipes.parse(section, "r.toml")


def test_bfloat16_adapters_learn_in_float32(aligned: tuple[Recipe, Workspace]) -> None:
    from palate.train.update import Learner

    _, workspace = aligned
    model = adapter.beside(weights.load_language_model(workspace.read("base")), workspace.read("sft") / "adapter")
    learner = Learner.make("adamw", model, Device("cpu", torch.bfloat16), weight_decay=0.0)
    layers = [layer for _, layer in lora.adapters(model)]
    assert all(layer.A.dtype == layer.B.dtype == layer.weight.dtype == torch.bfloat16 for layer in layers)
    assert set(learner.masters) == set(learner.weights()) and len(learner.masters) == 2 * len(layers)
    assert all(master.dtype == torch.float32 for master in learner.masters.values())

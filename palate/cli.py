"""The command line: argv -> recipe, run folder, stage or command. No logic, and no torch until work starts."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import shutil
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from palate import flow, metrics, ranks
from palate import recipe as recipes
from palate.errors import BadInput, PalateError, RecipeError
from palate.stages import STAGES
from palate.workspace import FOLDERS, Workspace

app = typer.Typer(
    name="palate",
    help="From raw text to a model that people prefer: collect, pretrain, fine-tune, rank, reward, PPO.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Run = Annotated[Path, typer.Argument(help="A run folder, for example runs/kitchen.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change the recipe.")]
STOPPED = 130
"""Exit code after Ctrl-C, as shells expect (128 + SIGINT)."""
TERMINATED = 143
"""The same after SIGTERM, which `kill`, batch systems and a machine that shuts down send."""
LOST = ("Connection closed", "Connection reset", "Broken pipe", "Timed out", "NCCL")
"""What torch says when one process waits for another that is gone."""


def _say_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature of an option's callback
    if wanted:
        typer.echo(f"palate {version('palate')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which.")] = False,  # noqa: FBT002
) -> None:
    """Options of `palate` itself. (Its help text is given to `typer.Typer` above.)"""


@app.command("run")
def run_recipe(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe file (TOML), the name of one that ships with Palate, or a run folder.")
    ],
    run: Annotated[Path | None, typer.Option("--run", help="Run folder; runs/NAME of the recipe when absent.")] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Start with this stage.")] = None,
    last: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")] = None,
    overrides: Overrides = None,
) -> None:
    """Run a recipe, or go on with a run. Stages whose inputs and settings did not change are not run again."""
    if not ranks.leads():
        flow.follow()
        return
    if run is None and (recipe / flow.RECIPE).is_file():
        run, recipe = recipe, recipe / flow.RECIPE
    with flow.led():
        settings = recipes.load(shipped(recipe), overrides or ())
        folder = run or Path("runs") / settings.name
        with Workspace(folder).held():  # before the recipe is written: a second run must not change a running one's
            resolved, workspace = flow.open_run(settings, folder)
            flow.run(resolved, workspace, first=first, last=last)
    report = workspace.path("report") / "report.html"
    if last is None and report.is_file():
        metrics.say(f"\nThe report: {report}")


def shipped(recipe: Path) -> Path:
    """The recipe at this path, or the shipped one of this name ("kitchen")."""
    if recipe.exists() or recipe.suffix == ".toml":
        return recipe
    found = recipe_folder() / f"{recipe.name}.toml"
    if not found.is_file():
        names = ", ".join(sorted(p.stem for p in recipe_folder().glob("*.toml")))
        raise BadInput("there is no such recipe.", recipe, f"Name a file, or one of {names}.")
    return found


def recipe_folder() -> Path:
    """Where the shipped recipes lie: in the package once installed, beside it in a clone."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "recipes"


@app.command()
def demo(
    run: Annotated[Path, typer.Option("--run", help="Run folder.")] = Path("runs/kitchen"),
    overrides: Overrides = None,
) -> None:
    """The smart chef, end to end on this machine: base, SFT, reward model, PPO and a report, in about ten minutes."""
    run_recipe(Path("kitchen"), run=run, first=None, last=None, overrides=overrides)
    metrics.say(
        f"Look around:          palate studio {run}         (in the browser: rank, write, chat, see)\n"
        f"Talk with it:         palate chat {run}\n"
        f"You are a guest too:  palate rank {run} --quick   (ten blind prompts, and you see what moved)"
    )


@app.command()
def plan(run: Run) -> None:
    """What exists in a run, what is stale and why, what comes next."""
    settings, workspace = flow.reopen(run)
    steps = flow.plan(settings, workspace)
    for step in steps:
        typer.echo(f"{step.state:8}{step.stage.name:10}{FOLDERS[step.stage.writes]:18}{step.why}")
    coming = next((step.stage.name for step in steps if step.state != "done"), None)
    typer.echo(f"next: {coming}; `palate run {run}` goes on from there" if coming else "everything is up to date")


@app.command("round")
def another_round(run: Run, overrides: Overrides = None) -> None:
    """Rank again what the policy of a run says now: its recipe goes on in a run beside it (kitchen, kitchen-2, ...)."""
    if not ranks.leads():
        flow.follow()
        return
    with flow.led():
        settings, place = flow.next_round(run, overrides or ())
        with Workspace(place).held():
            resolved, workspace = flow.open_run(settings, place)
            flow.run(resolved, workspace)
    metrics.say(f"\nThe report: {workspace.path('report') / 'report.html'}")


@app.command()
def init(
    target: Annotated[Path, typer.Argument(help="The recipe file to write.")] = Path("recipe.toml"),
    kind: Annotated[str, typer.Option("--like", help="Which shipped recipe to start from.")] = "folder",
) -> None:
    """Write a recipe to start from."""
    source = shipped(Path(kind))
    if target.exists():
        raise BadInput("this file exists already.", target, "Name another one, or delete it first.")
    shutil.copyfile(source, target)
    typer.echo(f"wrote {target}; edit it, then: palate run {target}")


@app.command()
def kitchen(
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 0,
    dishes: Annotated[int, typer.Option(help="How many dishes it has.")] = 120,
    documents: Annotated[int, typer.Option(help="How many pages are told about them.")] = 600,
) -> None:
    """Write the raw kitchen world (WARC, EPUB, PDF, feeds, forum dumps, papers) for people to look at."""
    from palate.kitchen import knowledge, prose, raw

    if folder.exists() and any(folder.iterdir()):
        raise BadInput("this folder is not empty.", folder, "Name another one.")
    world = knowledge.build(seed, dishes)
    folder.mkdir(parents=True, exist_ok=True)
    raw.write_raw(folder, prose.pages(world, seed=seed, count=documents), seed)
    typer.echo(f"wrote {sum(1 for p in folder.rglob('*') if p.is_file())} files under {folder}")


@app.command()
def chat(
    run: Annotated[Path, typer.Argument(help="A run folder or a model folder.")],
    model: Annotated[
        str | None,
        typer.Option(help="ppo, dpo, grpo, rejection, sft or base; the first of these there is when absent."),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always gives the most likely word.")] = 0.7,
    top_k: Annotated[int, typer.Option(min=0, help="Only the k most likely words; 0 is all.")] = 0,
    top_p: Annotated[float, typer.Option(min=0.001, max=1.0, help="Only words that together are so likely.")] = 1.0,
    min_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Only words so likely beside the likeliest.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(min=0.1, help="Above 1: fewer repetitions.")] = 1.0,
) -> None:
    """Talk with the models of a run; /model sft switches to another."""
    from palate.commands import chat as command

    sampling = dataclasses.replace(
        command.SAMPLING,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )
    command.talk(run, model=model, sampling=sampling, read=input, show=_show_at_once)


def _show_at_once(text: str) -> None:
    typer.echo(text, nl=False)
    sys.stdout.flush()


@app.command()
def rank(
    run: Run,
    quick: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--quick", help="Ten prompts, then see which answers you moved.")
    ] = False,
    fresh: Annotated[  # noqa: FBT002
        bool, typer.Option("--fresh", help="What a policy says while it trains, beside what it said before ([fresh]).")
    ] = False,
    count: Annotated[int | None, typer.Option(min=1, help="How many prompts to rank.")] = None,
    annotator: Annotated[str, typer.Option(help="Your pseudonym.")] = "",
) -> None:
    """Put the answers of a run in order, blind and shuffled; every order is kept at once."""
    from palate.commands import rank as command
    from palate.feedback import place

    settings, workspace = flow.reopen(run)
    url, prompts, wanted = place.store_url(settings, workspace), None, None
    if settings.rank is not None and "people" in settings.rank.by:
        wanted = settings.rank.until
    if fresh and quick:
        raise RecipeError("--fresh and --quick ask about different answers. Give one of them.")
    if fresh:
        if settings.fresh is None:
            raise RecipeError(
                f"the recipe of {run} has no [fresh] section, so its policies queue no answers while they train. Have "
                f"it there before they do, or in the next round: palate round {run} --set fresh.per_look=8"
            )
        campaigns = [place.fresh_campaign(workspace, name) for name in flow.policies(settings)]
        command.rank_fresh(
            run,
            url=url,
            campaigns=campaigns,
            annotator=annotator or _somebody(),
            count=count,
            read=_line,
            write=typer.echo,
        )
        return
    if quick:
        from palate.commands import quick as quickly

        workspace.verify("reward")  # told now, not after ten prompts
        workspace.verify("rankings")
        prompts, count, wanted = quickly.choose(workspace), count or quickly.PROMPTS, None
    given = command.rank(
        run,
        url=url,
        campaign=place.campaign(workspace),
        annotator=annotator or _somebody(),
        count=count,
        read=_line,
        write=typer.echo,
        prompts=prompts,
        wanted=wanted,
        overlap=settings.rank.overlap if settings.rank is not None else 1,
    )
    if quick and given:
        for line in quickly.refit(settings, workspace, given).lines:
            typer.echo(line)
    elif given and settings.rank is not None and "people" not in settings.rank.by:
        typer.echo('The recipe asks no people ([rank] by), so the run does not wait for them: by = ["people"] does.')
    elif given and workspace.own("rankings"):
        typer.echo(f"What came after the run went on is learned from with: palate run {run}")


@app.command()
def studio(
    place: Annotated[Path, typer.Argument(help="A run folder, or a .csv or .jsonl file with prompts and answers.")],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="8484 or the next free one when absent.")] = None,
    answers: Annotated[
        str | None, typer.Option(metavar="COLUMN,COLUMN", help="Which columns of a CSV file are answers.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where work on a file is kept; beside it when absent."),
    ] = None,
    annotator: Annotated[str, typer.Option(help="Your pseudonym, where nobody logs in.")] = "",
    login: Annotated[  # noqa: FBT002
        bool, typer.Option("--login", help="Have accounts; always so where other machines reach it (--host).")
    ] = False,
    origin: Annotated[
        str, typer.Option(metavar="https://...", help="What people type, where a proxy ends HTTPS before it.")
    ] = "",
    lead_link: Annotated[  # noqa: FBT002
        bool, typer.Option("--lead-link", help="Say a link that makes a lead, for whoever lost the password.")
    ] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,  # noqa: FBT002
) -> None:
    """Open the studio in the browser: write demonstrations, rank answers, chat, see what the rankings changed."""
    from palate.commands import studio as command

    command.open_studio(
        place,
        host=host,
        port=port,
        who=annotator or _somebody(),
        answers=[name.strip() for name in answers.split(",")] if answers else None,
        store=store,
        browser=browser and sys.stdout.isatty(),
        write=typer.echo,
        login=login,
        origin=origin.rstrip("/"),
        lead_link=lead_link,
    )


@app.command()
def refit(
    run: Run,
    out: Annotated[Path | None, typer.Option("--out", help="Write a reward model with these heads here.")] = None,
) -> None:
    """Fit the reward model's heads again, in seconds, on all judgements there are now; its body stays as it is."""
    from palate.commands import refit as command

    settings, workspace = flow.reopen(run)
    told = command.refit(settings, workspace, out)
    typer.echo(
        f"{told.judgements:,} judgements ({told.new:,} that the reward model was not trained on), all heads in "
        f"{told.seconds:.1f} s.\n"
        f"Held-out pairs in order: {told.before.mean:.3f} [{told.before.low:.3f}, {told.before.high:.3f}] as trained, "
        f"{told.after.mean:.3f} [{told.after.low:.3f}, {told.after.high:.3f}] fitted again (n = {told.after.n})."
    )
    if out is not None:
        typer.echo(f"The reward model with these heads: {out}")


bench = typer.Typer(
    help="Measure this machine: Palate beside what people would pick instead.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(bench, name="bench")
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Where the figures go; shown when absent.")]
Repeats = Annotated[int, typer.Option(min=5, help="Turns of each contestant; the median counts.")]


@bench.command("train")
def bench_train(json: Json = None, repeats: Repeats = 9) -> None:
    """One optimizer step of pretraining beside a plain PyTorch GPT and transformers' LLaMA, three sizes."""
    from palate.commands.bench import train as command

    command.main(json, repeats)


@bench.command("generate")
def bench_generate(json: Json = None, repeats: Repeats = 9) -> None:
    """Decoding beside transformers' generate."""
    from palate.commands.bench import generation as command

    command.main(json, repeats)


@bench.command("ppo")
def bench_ppo(json: Json = None, repeats: Repeats = 7) -> None:
    """One PPO update beside TRL's, the rollout included and apart."""
    from palate.commands.bench import ppo as command

    command.main(json, repeats)


@bench.command("reward")
def bench_reward(json: Json = None, repeats: Repeats = 7) -> None:
    """One epoch of reward-model training on rankings of four answers beside TRL's."""
    from palate.commands.bench import reward as command

    command.main(json, repeats)


@bench.command("preferences")
def bench_preferences(
    data: Annotated[Path, typer.Argument(help="The folder with people's preferences and the backbone's corpus.")],
    folder: Annotated[Path, typer.Argument(help="Where the backbone and what is finished are kept.")] = Path(
        "runs/preferences"
    ),
    json: Json = None,
) -> None:
    """The reward model on real people's preferences beside TRL's, the answer's length and its words; hours."""
    from palate.commands.bench import preferences as command

    command.main(data, folder, json)


@bench.command("align")
def bench_align(json: Json = None) -> None:
    """One step of SFT and one round of PPO on a model of SmolLM2-135M's shape, all weights and adapters."""
    from palate.commands.bench import align as command

    command.main(json)


@bench.command("cost")
def bench_cost(json: Json = None, repeats: Repeats = 9) -> None:
    """Speed and memory of pretraining on corpora of 1, 5 and 50 million tokens."""
    from palate.commands.bench import cost as command

    command.main(json, repeats)


@bench.command("dial")
def bench_dial(
    run: Run,
    json: Annotated[Path, typer.Option("--json", metavar="FILE", help="Where the figures go, trial by trial.")],
) -> None:
    """The sweep behind [dial], on the tokens of a run: many short pretrainings."""
    from palate.commands.bench import dial as command

    command.main(run, json)


@bench.command("aligned")
def bench_aligned(
    folder: Annotated[Path, typer.Argument(help="Where the runs lie; what is there is not made again.")],
    json: Json = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, with commas; each measurement has its own.")] = None,
    parts: Annotated[str, typer.Option(help="Which measurements, with commas.")] = "methods,rounds,safety,stop",
) -> None:
    """The kitchen on several seeds: methods, rounds, the safety weight, over-optimisation and the alarm at it."""
    from palate.commands.bench import aligned as command
    from palate.kitchen import knowledge
    from palate.kitchen.judge import Judge

    def gold(recipe: recipes.Recipe) -> Callable[[Any, str], dict[str, float]]:
        assert recipe.kitchen is not None
        return Judge(knowledge.build(recipe.kitchen.seed, recipe.kitchen.dishes)).scores

    wanted = [part.strip() for part in parts.split(",")]
    if unknown := [part for part in wanted if part not in command.PARTS]:
        raise BadInput(f"there is no part {unknown[0]!r}.", "--parts", f"Name some of {', '.join(command.PARTS)}.")
    numbers = seeds.split(",") if seeds is not None else []
    if not all(number.strip().isdigit() for number in numbers):
        raise BadInput("seeds are whole numbers.", "--seeds", "For example 61,62,63.")
    command.main(shipped(Path("kitchen")), gold, folder, json, [int(number) for number in numbers] or None, wanted)


@bench.command("shakespeare")
def bench_shakespeare(
    text: Annotated[Path, typer.Argument(help="The text of tiny Shakespeare, input.txt or input.txt.gz.")],
    json: Json = None,
    repeats: Repeats = 7,
) -> None:
    """A model by characters beside nanoGPT's after the same seconds of training, three seeds."""
    from palate.commands.bench import shakespeare as command

    command.main(text, json, repeats)


@bench.command("arithmetic")
def bench_arithmetic(
    json: Json = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where data and runs stay; a temporary one when absent.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """PPO, GRPO and others with a verifier as their only reward, on sums in words, three seeds."""
    from palate import api
    from palate.commands.bench import arithmetic as command

    command.main(api.run, json, folder, overrides=overrides or ())


@bench.command("gpu")
def bench_gpu(json: Json = None, repeats: Repeats = 5) -> None:
    """124 M and 350 M parameters on one CUDA GPU: training, generation and a round of PPO."""
    from palate.commands.bench import gpu as command

    command.main(json, repeats)


@bench.command("docs")
def bench_docs(
    page: Annotated[Path, typer.Argument(help="A page with places for tables.")] = Path("docs/performance.md"),
    folder: Annotated[Path, typer.Option("--from", help="Where the figures lie.")] = Path("benchmarks"),
) -> None:
    """Make the tables of docs/performance.md anew from the figures in benchmarks/."""
    from palate.commands.bench import docs as command

    command.main(page, folder)


feedback = typer.Typer(
    help="People's work in and out of the store: files of other programs, and backups.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(feedback, name="feedback")
Place = Annotated[str, typer.Argument(help="A run folder, a .sqlite file or the URL of a store.")]
FormatName = Annotated[str | None, typer.Option("--format", metavar="NAME", help="See docs/feedback.md.")]
Campaign = Annotated[
    str | None, typer.Option(help="Which round of asking; a run's own, or the only one of a store when absent.")
]


@feedback.command("import")
def feedback_import(
    place: Place,
    file: Annotated[Path, typer.Argument(help="A file of demonstrations, prompts, answers or rankings.")],
    form: FormatName = None,
    campaign: Campaign = None,
    answers: Annotated[
        str | None, typer.Option(metavar="COL,COL", help="The columns of a CSV that hold answers.")
    ] = None,
) -> None:
    """Take a file in, all of it or nothing. Its format is told from its first line, and never guessed."""
    from palate.commands import feedback as command

    columns = answers.split(",") if answers is not None else None
    command.take_in(place, file, name=form, campaign=campaign, answers=columns, write=typer.echo)


@feedback.command("export")
def feedback_export(
    place: Place,
    form: FormatName = None,
    campaign: Campaign = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file; standard output when absent.")] = None,
    names: Annotated[bool, typer.Option("--names", help="Keep people's names; pseudonyms otherwise.")] = False,  # noqa: FBT002
    simulated: Annotated[  # noqa: FBT002
        bool, typer.Option("--simulated", help="What no person judged, too, though the format cannot say so.")
    ] = False,
) -> None:
    """Write a campaign in the format of another program; Palate's own, which holds everything, when none is named."""
    from palate.commands import feedback as command

    command.give_out(
        place, name=form, campaign=campaign, out=out, names=names, simulated=simulated,
        write=lambda line: typer.echo(line, nl=False), tell=metrics.say,
    )  # fmt: skip


@feedback.command("backup")
def feedback_backup(
    place: Place, file: Annotated[Path, typer.Argument(help="A file that is not there yet, .jsonl.gz.")]
) -> None:
    """Write a whole store to one file, while people work."""
    from palate.commands import feedback as command

    command.back_up(place, file, typer.echo)


@feedback.command("restore")
def feedback_restore(
    file: Annotated[Path, typer.Argument(help="A file that `palate feedback backup` wrote.")], place: Place
) -> None:
    """Fill an empty store from a backup, on SQLite or PostgreSQL."""
    from palate.commands import feedback as command

    command.bring_back(file, place, typer.echo)


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe, to see what its training will take.")] = None,
    overrides: Overrides = None,
) -> None:
    """What this machine is, what Palate will do on it and why."""
    settings = recipes.load(shipped(recipe), overrides or ()) if recipe else None
    from palate.commands import doctor as command

    for line in command.report(settings):
        typer.echo(line)


def _line(prompt: str) -> str:
    """A line that a person types, who may edit it with the arrow keys where the system has readline."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    return input(prompt)


def _somebody() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user-{os.getuid()}"


def _stage_command(name: str, summary: str) -> None:
    def command(run: Run, overrides: Overrides = None) -> None:
        if not ranks.leads():
            flow.follow()
            return
        with flow.led():
            _, workspace = flow.reopen(run)
            with workspace.held():
                settings, _ = flow.reopen(run, overrides or ())
                made = flow.run_stage(name, settings, workspace)
        metrics.say(f"{name}: {'done' if made else 'up to date'}")

    command.__doc__ = f"{summary[0].upper()}{summary[1:]}. This stage alone, in an existing run."
    # "rank" at the terminal is a person's; the stage that takes the panel's or files' judgements is "rankings".
    app.command("rankings" if name == "rank" else name)(command)


for _stage in STAGES:
    _stage_command(_stage.name, _stage.summary)


def main(argv: list[str] | None = None) -> None:
    """Entry of the `palate` command: one clear line and an exit code for everything a person can mend."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        _call(app, argv)
    except PalateError as error:
        _fail(f"palate: {error}", error.exit_code)
    except (KeyboardInterrupt, _Terminated) as stop:
        code = STOPPED if isinstance(stop, KeyboardInterrupt) else TERMINATED
        _fail("\npalate: stopped. Finished work is kept; the same command goes on from here.", code)
    except (MemoryError, RuntimeError) as error:  # torch's is a RuntimeError
        if isinstance(error, MemoryError) or "memory" in str(error):
            _fail(
                "palate: there is not enough memory for this. Make the model, its context or the rows at once smaller "
                "in the recipe. Finished work is kept."
            )
        if ranks.world() > 1 and any(sign in str(error) for sign in LOST):
            _fail(
                "palate: another process of this run ended. Finished work is kept; the same command goes on from here."
            )
        raise
    except OSError as error:
        _fail(f"palate: {error.filename or 'a file'}: {error.strerror or error}. Finished work is kept.")
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(text: str, code: int = 1) -> NoReturn:
    """End with this line; of several processes the first that fails says why, and the others only lost it."""
    if ranks.world() > 1:
        from palate.train import distributed

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # torchrun passes on the Ctrl-C that the terminal sent already
        if not distributed.first_to_fail():
            sys.exit(code)
    metrics.complain(text)
    sys.exit(code)


class _Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt it is no Exception, so that nobody takes it for a fault of theirs."""


def _terminate(*_: object) -> None:
    raise _Terminated


def _call(application: Callable[..., Any], argv: list[str] | None) -> None:
    try:
        code = application(args=argv, standalone_mode=False)
    except (typer.Abort, EOFError):
        raise KeyboardInterrupt from None
    except Exception as error:
        # typer's own complaints about the command line (unknown option, missing argument) know how to show themselves
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            if ranks.leads():
                error.show()
            sys.exit(error.exit_code)
        raise
    if code == STOPPED:  # how typer ends on Ctrl-C
        raise KeyboardInterrupt
    if isinstance(code, int) and code:
        sys.exit(code)


if __name__ == "__main__":
    main()

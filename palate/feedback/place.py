"""Where people's work on a run lives: never inside the run."""

from __future__ import annotations

from palate.recipe import Recipe
from palate.workspace import Workspace


def store_url(recipe: Recipe, workspace: Workspace) -> str:
    """The recipe's store, or feedback.sqlite beside the run."""
    if recipe.feedback.store is not None:
        return recipe.feedback.store
    run = workspace.parent or workspace
    return f"sqlite:///{run.folder.resolve().parent / 'feedback.sqlite'}"


def campaign(workspace: Workspace) -> str:
    """Which round of asking a run is: its name and the answers it shows. A control shares it with its run."""
    run = workspace.parent or workspace
    return f"{run.folder.resolve().name}:{str(run.manifest('samples')['digest'])[:12]}"


def fresh_campaign(workspace: Workspace, method: str) -> str:
    """The same for answers that a policy gave while it trained ([fresh])."""
    return f"{workspace.folder.resolve().name}:fresh {method}:{str(workspace.manifest('sft')['digest'])[:12]}"


def writing(name: str) -> str:
    """The campaign of what people write for the run of this name: demonstrations and prompts."""
    return f"{name}:write"


def chats(name: str) -> str:
    """The campaign of the answers that people judged while they chatted with the models of the run of this name."""
    return f"{name}:chat"


def is_chats(campaign: str) -> bool:
    """Whether `chats` gave this name."""
    return campaign.endswith(":chat")

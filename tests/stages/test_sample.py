from palate.recipe import Recipe
from palate.records import Prompt, Response, read_jsonl
from palate.text import tokenizer as tokenizers
from palate.workspace import Workspace


def test_k_answers_with_the_ids_that_were_sampled(small_run: tuple[Recipe, Workspace]) -> None:
    recipe, workspace = small_run
    assert recipe.sample
    folder = workspace.read("samples")
    prompts = list(read_jsonl(folder / "prompts.jsonl", Prompt))
    responses = list(read_jsonl(folder / "responses.jsonl", Response))
    assert len(responses) == recipe.sample.answers * len(prompts)
    assert {p.split for p in prompts} == {"train", "dev"}
    tokenizer = tokenizers.load(workspace.read("sft"))
    for response in responses:
        assert tokenizer.decode(response.token_ids).strip() == response.text
        assert response.ended == (response.token_ids[-1] in tokenizer.stops)
    assert len({r.id for r in responses}) == len(responses)

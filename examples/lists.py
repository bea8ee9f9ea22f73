"""Mine from lists that another tool has scored: no teacher is loaded, and where a list ends is said.

Run ``python examples/lists.py``.
"""

from hf_negmine import CandidatePool, NegativeMiner

queries = {"q1": "what makes bread rise", "q2": "how do bees make honey"}
documents = {
    "bread": "Yeast turns sugar into carbon dioxide, which makes dough rise.",
    "bubbles": "Bread rises because of the bubbles of gas that yeast makes.",
    "flour": "Flour, water and salt are the dough of most breads.",
    "honey": "Bees gather nectar and fan it dry until it is honey.",
    "dance": "Bees dance to tell each other where flowers are.",
    "jar": "A jar of honey keeps for years in a cupboard.",
}
scores = {  # of a search engine, a reranker, a run: higher is more relevant
    "q1": {"bread": 0.81, "bubbles": 0.80, "flour": 0.55, "jar": 0.12, "dance": 0.08},
    "q2": {"honey": 0.77, "dance": 0.52},
}
positives = {"q1": ["bread"], "q2": ["honey"]}

pool = CandidatePool.from_lists(queries, documents, scores, positives, name="my reranker")
selection = pool.select("perc_pos:0.95", n=2)
for query, status, negatives in zip(queries.values(), selection.status, selection.texts(), strict=True):
    print(f"{query} ({status})", *(f"  - {text}" for text in negatives), sep="\n")

miner = NegativeMiner.from_pool(pool, num_negatives=1, method="perc_pos:0.95")  # to be shared: a summary, provenance
print(miner.mine(miner.labeled_rows).column_names)
pool.to_lists("lists")  # three tables for others
pool.to_run("run.trec.gz", qrels="qrels.txt")

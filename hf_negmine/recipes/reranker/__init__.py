"""A reranker trained on mined negatives, as NV-RerankQA is (arXiv 2409.07691), and what kind of them it needs."""

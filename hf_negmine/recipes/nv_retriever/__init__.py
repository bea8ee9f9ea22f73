"""NV-Retriever-v1 (Moreira et al. 2024, arXiv 2407.15831): its sets, its settings, what a run takes, and the run."""

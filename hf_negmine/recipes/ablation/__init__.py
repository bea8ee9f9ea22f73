"""The ablation of NV-Retriever (arXiv 2407.15831v2, sections 3.3 and 4): teachers, ensembles, methods, samplings."""

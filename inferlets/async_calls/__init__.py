"""Function calls that don't block: the model goes on speaking, and results interrupt it (AsyncLM, arXiv 2412.07017)."""

"""Long runs: the loop in compiled chunks, checkpoints, kept quantities, and sampling."""

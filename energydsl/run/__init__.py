"""Long runs: sampling, the loop over compiled chunks, checkpoints and kept quantities."""

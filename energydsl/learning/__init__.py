"""Learning from data: objectives, the learning loop, and the likelihood."""

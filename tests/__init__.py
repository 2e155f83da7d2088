"""Tests of energydsl; `tests.oracles` holds exact answers that share no code with it."""

"""Random models, compared with NumPy.

A model is drawn from a seed as a recipe, a small tree that is read twice: as the source of an
energydsl model, which is executed, and as arithmetic in NumPy, which shares no code with the
package. `python -m tests.fuzz --models 2000 --seed 0` runs it.
"""

"""How annotations are held under test: by beartype, an int standing for a float as usual."""

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))

"""How annotations are read at run time under pytest: an int is a float and a float a complex, as PEP 484 has it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))

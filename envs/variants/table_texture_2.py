"""A table top of grey granite."""

from envs.scenes._surfaces import stone
from envs.variants._surroundings import table_texture

VARIANT = table_texture("table_texture_2", top=stone((126, 132, 138), contrast=0.06, grain=0.22), repeat=(2, 2))

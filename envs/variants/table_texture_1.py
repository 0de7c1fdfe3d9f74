"""A table top of dark wood."""

from envs.scenes._surfaces import wood
from envs.variants._surroundings import table_texture

VARIANT = table_texture("table_texture_1", top=wood((118, 66, 42), boards=6), repeat=(1, 1))

"""A kitchen: white tiles on the wall, wooden boards on the floor."""

from envs.scenes._surfaces import tiles, wood
from envs.variants._surroundings import background

VARIANT = background("background_1", wall=tiles((222, 226, 224), across=6), floor=wood((150, 104, 66), boards=5))

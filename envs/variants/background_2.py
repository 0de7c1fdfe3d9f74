"""A living room: a green plastered wall, a dark carpet."""

from envs.scenes._surfaces import fabric, stone
from envs.variants._surroundings import background

VARIANT = background("background_2", wall=stone((104, 138, 116), contrast=0.1), floor=fabric((70, 66, 92)))

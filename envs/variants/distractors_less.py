"""Four more things on the table."""

from envs.variants._distractors import distractors

VARIANT = distractors("distractors_less", ("opened_pepsi_can", "apple", "sponge", "orange"))

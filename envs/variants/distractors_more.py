"""Six more things on the table."""

from envs.variants._distractors import distractors

VARIANT = distractors(
    "distractors_more",
    ("opened_7up_can", "opened_sprite_can", "sponge", "orange", "opened_fanta_can", "spoon"),
)

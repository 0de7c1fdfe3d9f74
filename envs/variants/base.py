"""Nothing changed."""

from envs.variant import SETTINGS, Variant

VARIANT = Variant("base", settings=SETTINGS)

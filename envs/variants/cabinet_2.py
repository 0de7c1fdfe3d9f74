"""A cabinet whose drawers are of grey wood inside (SIMPLER's `mk_station2`)."""

from envs.variant import VARIANT_AGGREGATION, Variant
from envs.variants._cabinets import darken_drawers, has_cabinet

VARIANT = Variant("cabinet_2", settings=(VARIANT_AGGREGATION,), edit=darken_drawers, belongs_to=has_cabinet)

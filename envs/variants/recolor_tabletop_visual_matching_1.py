"""The arm's colour in the photographs: SIMPLER's first match of the robot above the table."""

from envs.variants._arm_colour import arm_colour

VARIANT = arm_colour("recolor_tabletop_visual_matching_1", arm=(235, 209, 184), fingers=(217, 161, 90))

"""The arm's colour in the photographs: SIMPLER's second match of the robot above the table."""

from envs.variants._arm_colour import arm_colour

VARIANT = arm_colour("recolor_tabletop_visual_matching_2", arm=(238, 222, 200), fingers=(242, 205, 126))

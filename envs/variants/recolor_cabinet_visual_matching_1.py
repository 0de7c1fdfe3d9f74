"""The arm's colour in the photographs: SIMPLER's match of the robot in front of the cabinet."""

from envs.variants._arm_colour import arm_colour

VARIANT = arm_colour("recolor_cabinet_visual_matching_1", arm=(201, 169, 139), fingers=(217, 161, 90))

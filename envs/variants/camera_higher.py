"""The camera looks 0.12 rad higher (SIMPLER's `AltGoogleCamera2`)."""

from envs.variants._camera_pose import camera_pose

VARIANT = camera_pose("camera_higher", tilt=0.6651361)

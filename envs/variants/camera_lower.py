"""The camera looks 0.15 rad lower (SIMPLER's `AltGoogleCamera`)."""

from envs.variants._camera_pose import camera_pose

VARIANT = camera_pose("camera_lower", tilt=0.9351361)

"""One file per kind of surroundings."""

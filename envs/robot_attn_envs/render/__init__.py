"""The camera: drawing the frames of many worlds at once."""

"""Procedural surfaces: textures, defects, and the data module that writes and serves them."""

"""Measurements of speed and memory, behind `dpclip bench`."""

"""Scoring by images of the target: a memory of good images, an unlabelled batch, corrections."""

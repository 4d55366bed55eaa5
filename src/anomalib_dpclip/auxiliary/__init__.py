"""The labelled set that adapters learn from: which one, its samples, how they are augmented, and that none is tested on."""

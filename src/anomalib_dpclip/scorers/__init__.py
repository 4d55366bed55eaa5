"""How an image is scored: by the text alone, by good images of the target too, or by the other images of a run."""

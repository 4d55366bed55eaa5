"""How an image is scored: by the text alone, by good images of the target too, or by the other images of a run.

A scorer gives raw maps and raw image scores; what they mean on a data set belongs to post-processing.
"""

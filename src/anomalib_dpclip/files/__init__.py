"""Files, whatever is in them: written whole, loaded without running code, downloaded, labelled with what measured them.

Nothing of the method, of CLIP or of anomalib's models belongs here.
"""

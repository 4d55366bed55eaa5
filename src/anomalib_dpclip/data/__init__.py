"""Images on disk, as data modules of anomalib and as lists; and the results of predicting photos. No model is known here."""

"""The data sets of the experiments: their names, what their classes show, their domains. Nothing here reads a file."""

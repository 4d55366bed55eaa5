"""Files of trained adapters: their formats, into and out of models, and the command that shows them.

Training them, and using a calibration that they carry, belongs to the model.
"""

"""Files of trained adapters: their formats, into and out of models, and the command that shows them."""

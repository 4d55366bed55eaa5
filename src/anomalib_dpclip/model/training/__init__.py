"""How adapters learn from the auxiliary set: its batches, the optimiser and the losses, and the thresholds that they carry."""

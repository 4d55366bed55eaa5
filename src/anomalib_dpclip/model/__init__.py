"""The anomalib model: its arguments and parts, Lightning's hooks, training, checkpoints. The paper's maths is in `method`."""

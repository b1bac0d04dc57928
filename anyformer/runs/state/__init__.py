"""What a checkpoint holds of a run beside the model: Lightning's loops, the random generators, and what
its records are known by."""

"""What a checkpoint holds of a run beside the model: Lightning's loops and the random generators."""

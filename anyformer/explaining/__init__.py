"""What a model looked at, and what its answer rests on."""

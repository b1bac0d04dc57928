"""What a task starts from: the weights of another, and what it has learned of its inputs alone."""

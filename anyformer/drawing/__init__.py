"""Pictures of samples, of who attends to whom, and of evaluations."""

"""What a run folder and the terminal say of a run: its curves, its metrics by subset and class, what it generates."""

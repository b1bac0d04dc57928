"""What a run would be, before anything is trained."""

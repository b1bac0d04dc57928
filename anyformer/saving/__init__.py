"""What is on disk: whole files, manifests, the folder of a model and of a run."""

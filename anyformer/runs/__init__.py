"""Runs: training into a folder, going on exactly, cross-validation."""

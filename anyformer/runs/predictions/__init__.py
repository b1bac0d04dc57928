"""Predictions of the records of any source: read like those of the run, in bounded memory, as tables that a killed
command goes on with."""

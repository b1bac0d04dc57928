"""Configs: checked, parsed and made into objects."""

"""Channels of series for the tests."""

from __future__ import annotations

import numpy as np

WALK = np.cumsum(np.random.default_rng(0).normal(size=(3, 11)), 1)
"""(channels, steps)"""
X, Y = [1.0, 2.0, 4.0], [9.0, 5.0, 5.0]
"""Two channels of a record by name."""

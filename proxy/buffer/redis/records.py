"""What became of each batch: two lists a key, so that ordinary batches push no ambiguous one off."""

ORDINARY = 5_000
"""Ordinary batches that are remembered of each key: some 50 seconds at the full rate."""

AMBIGUOUS = 5_000
"""Ambiguous batches that are remembered of each key."""

"""Drift: whether what the fleet sees and says has changed, where, and since when."""

"""The pure core of updating: no I/O, no clock, no randomness."""

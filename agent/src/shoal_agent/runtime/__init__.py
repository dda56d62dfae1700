"""Answering: load a bundle's model, run it, swap it while it runs, and sum up what it saw."""

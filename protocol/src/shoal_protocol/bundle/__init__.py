"""The bundle: one immutable, signed version of a model with all it needs, named by its manifest's digest."""

"""Trained model in, verified and reproducible bundle out."""

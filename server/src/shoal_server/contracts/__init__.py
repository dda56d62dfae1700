"""Data-quality contracts of bundles: how often the fleet breaks their rules, and who is told."""

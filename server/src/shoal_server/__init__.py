"""Registry, fleet, rollouts, drift and dashboard."""

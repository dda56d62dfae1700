"""The light agent: pulls, verifies, activates, answers, observes and reports."""

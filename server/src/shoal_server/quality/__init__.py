"""How good the models' answers are: truth from labels that came back, estimates where none did, and alerts."""

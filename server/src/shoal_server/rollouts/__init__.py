"""Moving a cohort of devices to a bundle by stages that stop themselves."""

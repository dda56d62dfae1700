"""The devices: who they are, how they join, which a query chooses, and what each should run."""

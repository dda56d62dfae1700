"""What a process that loads somebody's model can reach: no network, few files, no process beside its own (Linux)."""

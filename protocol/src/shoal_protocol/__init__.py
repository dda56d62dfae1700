"""What the converter, the server and the agent agree on; no I/O anywhere."""

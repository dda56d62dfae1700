"""The agent as a service of systemd: its unit, installing it, and what it tells the service manager."""

"""How two samples are compared: counts, the five views, divergences. Pure, and shared by the server and shoalctl."""

"""`shoalctl`: what an operator types. It speaks HTTP only and imports no room of the server."""

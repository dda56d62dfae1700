"""The local HTTP interface: Open Inference Protocol v2 and plain rows, on loopback or a Unix socket."""

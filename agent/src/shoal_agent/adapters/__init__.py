"""The outside world of updating: disk, network, child processes."""

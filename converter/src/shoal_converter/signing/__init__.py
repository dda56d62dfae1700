"""Release keys and root keys: where they are, what they sign, and bringing that to a server that holds neither."""

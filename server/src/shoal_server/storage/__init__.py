"""Where the server keeps things: the database, the blobs, and the settings that say where both are."""

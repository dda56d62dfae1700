"""The updating half of the agent: it carries out what the slot machine decides, and tells the server."""

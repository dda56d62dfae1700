"""Who may say what: releases signed away from the server, assignments signed by it, and how a device joins.

The only part of the protocol that imports cryptography; programs import it when they need it.
"""

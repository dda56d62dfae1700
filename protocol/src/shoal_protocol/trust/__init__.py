"""Who may say what: releases signed away from the server, assignments signed by it, and how a device joins.

The only part of the protocol that imports cryptography; `assignment`, `receipt` and `signed_list` do so only where a
signature is made or checked, so that a program may leave that to another.
"""

"""Webhooks: who receives events, how they are sent, signed, tried again and logged."""

"""Alerts: what people are told, once each, until somebody has seen to it."""

from shoal_server.alerts.rules import AlertState, Severity
from shoal_server.alerts.store import raise_alert, resolve_alert

__all__ = ["AlertState", "Severity", "raise_alert", "resolve_alert"]

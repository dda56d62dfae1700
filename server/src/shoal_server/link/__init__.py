"""The line to the devices: one port, with an MQTT endpoint of our own and an external broker behind it."""

from shoal_server.link.port import DeviceLink, Inbound, LinkError

__all__ = ["DeviceLink", "Inbound", "LinkError"]

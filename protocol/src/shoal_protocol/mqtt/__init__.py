"""What crosses MQTT: topics, messages and the packet codec."""

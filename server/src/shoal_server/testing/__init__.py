"""What tests of the server are built on: databases that are empty, settings that touch nothing, a clock that stands still."""

"""What tests of the server stand on: an empty database, settings that touch nothing, a clock that stands still."""

from shoal_server.testing.program import FakeClock, api_token, fake_services, listening, program_of, settings_in

__all__ = ["FakeClock", "api_token", "fake_services", "listening", "program_of", "settings_in"]

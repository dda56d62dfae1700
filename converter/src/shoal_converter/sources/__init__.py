"""Where models and samples come from, one loader each."""

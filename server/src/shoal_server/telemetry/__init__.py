"""What devices measure: windows taken in exactly once, kept for a while, and summed by the hour."""

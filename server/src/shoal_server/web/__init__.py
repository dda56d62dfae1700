"""What people see: pages, live events, health, and errors in the forms that HTTP clients expect."""

"""`make soak`: everybody uses everything at an ordinary pace, and nothing may grow that is not a record of it."""

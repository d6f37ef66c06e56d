"""Money by two people: bounds of one person, what waits for a second, and how each kind of change is applied."""

"""What is kept of organizations and people, for how long, and how they get or erase it."""

"""Pages about people: the landing page, organizations, members and API keys."""

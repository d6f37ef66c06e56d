"""Who may spend how much in a day, week or month: members and end users, and exceptions for a while."""

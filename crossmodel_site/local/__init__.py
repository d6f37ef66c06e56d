"""`make run`: everything of CrossModel on one machine, with servers of its own."""

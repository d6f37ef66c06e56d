"""What is on sale: the catalog file, loading it, and the snapshot of it that the request path reads."""

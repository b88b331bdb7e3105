"""Search: what is asked next, what it is told, and what is kept of it."""

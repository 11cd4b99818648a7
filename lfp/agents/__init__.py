"""A bundle for agents: what each tool answers, claims checked against stored rows, and the server that offers both."""

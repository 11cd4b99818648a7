"""A client for OpenAI-compatible servers: many concurrent calls, a budget in dollars, and answers cached on disk."""

"""A client of any OpenAI-compatible server: many questions at once, within a budget, none paid twice."""

"""A fake OpenAI-compatible server, with answers that are right, wrong, random, slow or flaky."""

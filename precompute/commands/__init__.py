"""Commands beside `run`: label, ablate, sweep, plant, bench, fake-openai."""

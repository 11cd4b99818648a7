"""What asking a language model may cost: dollars set aside before a call and settled after it."""

from __future__ import annotations

_PER_MILLION = 1e-6


class Budget:
    """Dollars that are never passed: `spent_usd` and what is set aside stay within `usd` together.

    `price_in` and `price_out` are dollars a million tokens read and written. The promise rests on the worst case being
    one: a server that writes more tokens than it was allowed is counted in full, after the fact.
    """

    def __init__(self, usd: float, *, price_in: float, price_out: float) -> None:
        self.usd, self.spent_usd = usd, 0.0
        self._price_in, self._price_out = price_in, price_out
        self._set_aside_usd, self._open = 0.0, 0

    @property
    def idle(self) -> bool:
        """Whether nothing is set aside, so that waiting will free nothing."""
        return self._open == 0

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float:
        """The price of so many tokens read and written."""
        return (tokens_in * self._price_in + tokens_out * self._price_out) * _PER_MILLION

    def fits(self, usd: float) -> bool:
        """Whether so much can be set aside."""
        return self.spent_usd + self._set_aside_usd + usd <= self.usd

    def set_aside(self, usd: float) -> None:
        """Keeps so much for a call; to be settled once."""
        self._set_aside_usd += usd
        self._open += 1

    def settle(self, set_aside_usd: float, spent_usd: float) -> None:
        """Replaces what was set aside for a call by what it cost."""
        self._open -= 1
        self._set_aside_usd = 0.0 if self.idle else self._set_aside_usd - set_aside_usd
        self.spent_usd += spent_usd

"""Any script in Latin letters: uroman (Hermjakob et al. 2018), loaded when first needed."""

from __future__ import annotations

from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uroman import Uroman

MEMORY = 200_000
"""How many words are remembered: uroman takes a millisecond or so for each."""


class Romanizer:
    """Romanises word by word and remembers the words."""

    def __init__(self) -> None:
        self._word = lru_cache(MEMORY)(self._romanize_word)

    def romanize(self, text: str, language: str | None = None) -> str:
        """Return the text in Latin letters, as `Uroman.romanize_string` writes it.

        Args:
            language: ISO 639-3; uroman has rules of its own for some languages (a final Gujarati
                "a" is silent, a Ukrainian "г" is h).

        >>> Romanizer().romanize("Україна, 2 години", "ukr")
        'Ukrayina, 2 hodyny'
        """
        # uroman's rules end at a blank, so that words can be romanised alone and remembered.
        return " ".join(self._word(word, language) for word in text.split(" "))

    def _romanize_word(self, word: str, language: str | None) -> str:
        if word.isascii():
            return word  # uroman changes no ASCII, and need not be loaded for it
        return self._uroman.romanize_string(word, language)

    @cached_property
    def _uroman(self) -> Uroman:
        from uroman import Uroman

        return Uroman()


@cache
def romanizer() -> Romanizer:
    """Return the romaniser that the whole process shares: loading its tables takes seconds."""
    return Romanizer()

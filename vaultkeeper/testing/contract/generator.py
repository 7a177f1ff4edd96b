"""The contract of every generator: random, within its alphabet, honest about its entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import ClassVar

from vaultkeeper.errors import BackendError, VaultkeeperError
from vaultkeeper.model.outcome import Refused
from vaultkeeper.model.secret import Fields
from vaultkeeper.ports import Fetches, Generator
from vaultkeeper.testing.contract.trial import Watch

DRAWS = 40


class GeneratorContract:
    """Inherit it and name `generator`. `settings`: those to try; the kind's defaults where there is none."""

    generator: ClassVar[type[Generator]]
    settings: ClassVar[tuple[Mapping[str, object], ...]] = ({},)

    def draw(self, settings: Mapping[str, object], forbidden: frozenset[str] = frozenset()) -> list[str]:
        return [self.main(self.made(settings, forbidden, None)) for _ in range(DRAWS)]

    def made(self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None) -> Fields:
        """One value, fetched where another system makes it. Raises VaultkeeperError where there is none."""
        opened = self.generator()
        if not isinstance(opened, Fetches):
            return opened.generate(settings, forbidden, max_bytes)
        fetched = opened.fetch(settings, forbidden, max_bytes, Watch().context())
        if isinstance(fetched, Refused):
            raise BackendError(fetched.detail)
        assert isinstance(fetched, Mapping), fetched
        return fetched

    def main(self, fields: Fields) -> str:
        """The generated value; it must be text."""
        return fields[self.generator.field].text()

    def test_a_kind_describes_itself(self) -> None:
        assert self.generator.kind
        assert self.generator.field
        assert self.generator.Settings.model_config.get("frozen")
        assert "properties" in self.generator.Settings.model_json_schema()
        for settings in self.settings:
            self.generator.Settings.model_validate(settings)

    def test_values_do_not_repeat(self) -> None:
        for settings in self.settings:
            values = self.draw(settings)
            assert len(set(values)) == len(values)

    def test_values_keep_to_the_alphabet(self) -> None:
        for settings in self.settings:
            assert set("".join(self.draw(settings))) <= self.generator().alphabet(settings)

    def test_no_more_entropy_is_claimed_than_a_value_could_hold(self) -> None:
        for settings in self.settings:
            opened = self.generator()
            longest = max(len(value) for value in self.draw(settings))
            bits = opened.entropy_bits(settings, frozenset())
            assert 0 < bits <= longest * math.log2(len(opened.alphabet(settings))) + 1e-6

    def test_forbidden_characters_never_occur_or_the_kind_says_that_it_cannot(self) -> None:
        for settings in self.settings:
            opened = self.generator()
            unnarrowed = opened.entropy_bits(settings, frozenset())
            for character in sorted(opened.alphabet(settings)):
                values = self.drawn_or_refused(settings, frozenset(character), None)
                assert character not in "".join(values)
                assert opened.entropy_bits(settings, frozenset(character)) <= unnarrowed

    def test_a_value_fits_or_the_kind_says_that_it_cannot(self) -> None:
        for settings in self.settings:
            full = max(len(value.encode()) for value in self.draw(settings))
            assert self.drawn_or_refused(settings, frozenset(), full)
            assert all(len(value.encode()) <= 4 for value in self.drawn_or_refused(settings, frozenset(), 4))

    def drawn_or_refused(
        self, settings: Mapping[str, object], forbidden: frozenset[str], max_bytes: int | None
    ) -> list[str]:
        """Some values; none where the kind refuses with an error of ours."""
        with suppress(VaultkeeperError):
            return [self.main(self.made(settings, forbidden, max_bytes)) for _ in range(DRAWS)]
        return []

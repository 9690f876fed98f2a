"""Planted texts for a store that holds none: sentences with invented secrets, by Faker."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors_embinv import EmbInvError
from .sample import Sample

# each name in braces is a provider of Faker's
SENTENCES = (
    "{{first_name}} {{last_name}} was born on {{date_of_birth}}.",
    "The password of {{first_name}} is {{password}}.",
    "Please call {{first_name}} {{last_name}} at {{phone_number}}.",
    "Send the invoice to {{email}} before {{day_of_week}}.",
    "{{first_name}} lives at {{street_address}} in {{city}}.",
    "We pay {{last_name}} {{random_int}} dollars a month as a {{job}}.",
    "{{company}} will dismiss {{first_name}} {{last_name}} in {{month_name}}.",
    "The card {{credit_card_number}} belongs to {{first_name}} {{last_name}}.",
)


def plant(count: int, encode: Callable[..., Any], seed: int) -> Sample:
    """A sample of invented sentences and their vectors.

    Args:
        count: n, how many.
        encode: N texts → (N, D).
        seed: of Faker.

    Raises:
        EmbInvError: Faker is not installed.
    """
    try:
        from faker import Faker
    except ImportError as error:
        raise EmbInvError("planted texts need Faker: pip install 'embinv[audit]'.") from error
    faker = Faker("en_US")
    faker.seed_instance(seed)
    texts = [faker.parse(SENTENCES[index % len(SENTENCES)]) for index in range(count)]
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()
    vectors = np.asarray(encode(texts), dtype=np.float32)
    return Sample(vectors, np.arange(count), [f"canary-{index}" for index in range(count)], texts, count, digest)

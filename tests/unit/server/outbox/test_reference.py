"""The catalogue of events and its page."""

import pytest

from shoal_server.outbox.event_types import DATA_OF, EventType
from shoal_server.outbox.reference import meanings, page


def test_the_page_is_made_from_the_catalogue(request: pytest.FixtureRequest) -> None:
    written = (request.config.rootpath / "docs/reference/webhook-events.md").read_text()
    assert written == page(), "python -m shoal_server.outbox.reference > docs/reference/webhook-events.md"


def test_every_type_has_a_meaning_and_a_family_with_fields() -> None:
    assert set(meanings()) == {type_.value for type_ in EventType}
    assert {type_.family for type_ in EventType} == set(DATA_OF)
    assert EventType.ROLLOUT_ROLLED_BACK.wire_name == "dev.shoal.rollout.rolled_back.v1"

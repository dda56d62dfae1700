"""What is sent: the CloudEvent, and messages for chats."""

import json
from typing import Any

import pytest

from shoal_protocol.errors import CallerError
from shoal_server.outbox.tables import EventRow
from shoal_server.webhooks.bodies import MAX_CHAT_TEXT, Format, parse_format, render


def event(**changes: Any) -> EventRow:
    given = {
        "id": "evt_1",
        "type": "alert.opened",
        "subject": "alert:7",
        "at": 1_800_000_000.25,
        "severity": "warning",
        "title": "temp drifts",
        "text": "temp at site=bern drifts",
        "page": "/drift?slot=q",
        "data": {"alert": 7},
    }
    return EventRow(**{**given, **changes})


def body(format_: Format, **changes: Any) -> Any:
    return json.loads(render(event(**changes), format_, source="https://shoal.example/")[1])


def test_a_cloudevent_has_every_required_attribute() -> None:
    content_type, raw = render(event(), Format.CLOUDEVENTS, source="https://shoal.example")
    assert content_type == "application/cloudevents+json; charset=utf-8"
    assert json.loads(raw) == {
        "specversion": "1.0",
        "id": "evt_1",
        "type": "dev.shoal.alert.opened.v1",
        "source": "https://shoal.example",
        "subject": "alert:7",
        "time": "2027-01-15T08:00:00.250Z",
        "datacontenttype": "application/json",
        "data": {
            "title": "temp drifts",
            "text": "temp at site=bern drifts",
            "url": "https://shoal.example/drift?slot=q",
            "alert": 7,
        },
    }
    assert body(Format.CLOUDEVENTS, page="")["data"]["url"] is None


def test_the_same_event_is_the_same_bytes_again() -> None:
    assert render(event(), Format.CLOUDEVENTS, source="s") == render(event(), Format.CLOUDEVENTS, source="s")


def test_slack_gets_one_text_in_which_nobody_can_mention_or_link() -> None:
    hostile = body(Format.SLACK, title="<!channel> & <http://evil|here>")
    assert hostile == {
        "text": "warning: *&lt;!channel&gt; &amp; &lt;http://evil|here&gt;*\ntemp at site=bern drifts\n"
        "<https://shoal.example/drift?slot=q|open in Shoal>"
    }


def test_teams_gets_an_adaptive_card() -> None:
    message = body(Format.TEAMS, type="alert.resolved")
    (attachment,) = message["attachments"]
    assert (message["type"], attachment["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    card = attachment["content"]
    assert [block["text"] for block in card["body"]] == ["resolved: temp drifts", "temp at site=bern drifts"]
    assert card["actions"][0]["url"] == "https://shoal.example/drift?slot=q"


@pytest.mark.parametrize("format_", [Format.SLACK, Format.TEAMS])
def test_chats_are_sent_no_more_than_they_take(format_: Format) -> None:
    long = render(event(text="ä" * 20_000, page="", severity=None), format_, source="s")[1].decode()
    assert long.count("ä") == MAX_CHAT_TEXT - 1
    assert "…" in long
    assert json.loads(render(event(text="", page=""), format_, source="s")[1])


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(CallerError, match="cloudevents, slack, teams"):
        parse_format("discord")

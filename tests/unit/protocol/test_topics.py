import pytest

from shoal_protocol.errors import CallerError, ContentError
from shoal_protocol.mqtt.topics import Down, Topic, Up, down, parse_topic, up, up_filter


@pytest.mark.parametrize("kind", [*Up, *Down])
def test_topics_are_parsed_and_written_alike(kind: Up | Down) -> None:
    topic = Topic("cam-07_a", kind)
    assert parse_topic(str(topic)) == topic
    assert str(topic) == (up("cam-07_a", kind) if isinstance(kind, Up) else down("cam-07_a", kind))


@pytest.mark.parametrize("device", ["", "a/b", "+", "#", "server", "a" * 65, "ä", "a b"])
def test_an_id_that_could_reach_others_is_refused(device: str) -> None:
    with pytest.raises(CallerError, match="not a device id"):
        up_filter(device)


@pytest.mark.parametrize(
    "topic",
    [
        "shoal/v1/server/status",
        "shoal/v1/a/up",
        "shoal/v1/a/up/desired",
        "shoal/v2/a/up/event",
        "shoal/v1//up/event",
        "$SYS/x",
        "shoal/v1/a/up/event/x",
    ],
)
def test_other_topics_are_refused(topic: str) -> None:
    with pytest.raises(ContentError, match="no topic of Shoal"):
        parse_topic(topic)

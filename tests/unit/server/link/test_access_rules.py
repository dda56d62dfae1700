"""Who may say and hear what, and how filters match."""

import pytest

from shoal_protocol.errors import ContentError
from shoal_protocol.mqtt.topics import SERVER_STATUS, Down, Up, down, up
from shoal_server.link.access_rules import addressee, hearable, matches, spoken
from shoal_server.link.verifiers import verifier_line, verify_secret


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        (up("d1", Up.PROFILE), Up.PROFILE),
        (up("d2", Up.PROFILE), None),
        (down("d1", Down.ACK), None),
        (SERVER_STATUS, None),
        ("shoal/v1/d1/up/other", None),
        ("shoal/v1/d1/up", None),
        ("shoal/v1/d1/up/profile/x", None),
        ("$SYS/broker", None),
    ],
)
def test_a_device_speaks_under_its_own_name(topic, kind):
    assert spoken("d1", topic) is kind


def test_a_device_hears_what_is_for_it():
    assert set(hearable("d1")) == {SERVER_STATUS, "shoal/v1/d1/down/desired", "shoal/v1/d1/down/ack"}


def test_addressees():
    assert addressee(down("d1", Down.DESIRED)) == "d1"
    assert addressee(SERVER_STATUS) is None
    for topic in (up("d1", Up.EVENT), "x", "shoal/v1/d1/down/x"):
        with pytest.raises(ContentError):
            addressee(topic)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "match"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/+", "/b", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "ab", False),
        ("#", "a/b/c", True),
        ("+", "", True),
    ],
)
def test_filters_match_as_the_standard_says(topic_filter, topic, match):
    assert matches(topic_filter, topic) is match


def test_a_verifier_fits_its_secret_only():
    line = verifier_line("secret", salt=b"0123456789ab")
    assert line.startswith("$7$101$MDEyMzQ1Njc4OWFi$")
    assert verify_secret(b"secret", line)
    assert not verify_secret(b"Secret", line)
    assert not verify_secret(b"", line)
    assert verifier_line("secret", salt=b"another-salt") != line


@pytest.mark.parametrize(
    "line", ["", "x", "$7$101$!!$!!", "$6$101$MDEy$MDEy", "$7$1$MDEy$MDEy", "$7$101$MDEy$", "$7$101$MDEy"]
)
def test_an_unreadable_verifier_fits_nothing(line):
    assert not verify_secret(b"", line)
    assert not verify_secret(b"secret", line)


def test_a_short_salt_is_refused():
    with pytest.raises(ValueError, match="12 bytes"):
        verifier_line("secret", salt=b"short")

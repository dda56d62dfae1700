"""What tags mean, and how versions grow."""

import pytest

from shoal_protocol.bundle.manifest import ARTIFACT_TYPE
from shoal_server.errors import ConflictError
from shoal_server.registry.versions import TagMeaning, check_new_version, meaning_of_tag, next_counter

OTHER = "application/x-other"


@pytest.mark.parametrize(
    ("tag", "kind", "meaning"),
    [
        ("1.4.0", ARTIFACT_TYPE, TagMeaning.VERSION),
        ("1.4.0-rc.1_x", ARTIFACT_TYPE, TagMeaning.VERSION),
        ("champion", ARTIFACT_TYPE, TagMeaning.ALIAS),
        ("sha256-" + "0" * 64, ARTIFACT_TYPE, TagMeaning.PLAIN),
        ("latest", OTHER, TagMeaning.PLAIN),
        ("Anything_else", OTHER, TagMeaning.PLAIN),
    ],
)
def test_tags(tag: str, kind: str, meaning: TagMeaning) -> None:
    assert meaning_of_tag(tag, kind) is meaning


@pytest.mark.parametrize(("tag", "kind"), [("Champion", ARTIFACT_TYPE), ("_x", ARTIFACT_TYPE), ("1.0", OTHER)])
def test_tags_that_mean_nothing_are_refused(tag: str, kind: str) -> None:
    with pytest.raises(ConflictError) as caught:
        meaning_of_tag(tag, kind)
    assert caught.value.data["oci_code"] == "TAG_INVALID"


def test_a_version_is_new_the_same_or_refused() -> None:
    assert check_new_version("m:1", existing_digest=None, digest="d")
    assert not check_new_version("m:1", existing_digest="d", digest="d")
    with pytest.raises(ConflictError, match="never change"):
        check_new_version("m:1", existing_digest="e", digest="d")


def test_counters() -> None:
    assert (next_counter([]), next_counter([3, 1])) == (1, 4)

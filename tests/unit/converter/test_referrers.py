"""The index that stands for a referrers API where there is none."""

import json

from shoal_converter.referrers import index_with
from shoal_protocol.canonical import sha256_digest

ONE = b'{"artifactType": "text/plain", "annotations": {"a": "b"}}'
TWO = b'{"config": {"mediaType": "text/markdown"}}'


def test_what_is_listed_stays_and_nothing_is_listed_twice() -> None:
    first = index_with(None, [ONE])
    both = index_with(first, [ONE, TWO])
    assert index_with(both, [TWO, ONE]) == both
    entries = json.loads(both)["manifests"]
    assert [entry["digest"] for entry in entries] == [sha256_digest(ONE), sha256_digest(TWO)]
    assert [entry["artifactType"] for entry in entries] == ["text/plain", "text/markdown"]
    assert entries[0]["annotations"] == {"a": "b"}
    assert entries[0]["size"] == len(ONE)


def test_entries_of_others_and_their_fields_stay() -> None:
    theirs = json.dumps({"schemaVersion": 2, "manifests": [{"digest": "sha256:1", "x": 1}], "annotations": {"k": "v"}})
    merged = json.loads(index_with(theirs.encode(), [ONE]))
    assert merged["manifests"][0] == {"digest": "sha256:1", "x": 1}
    assert merged["annotations"] == {"k": "v"}

import pytest

from shoal_protocol.errors import CallerError
from shoal_protocol.refs import Ref, parse_ref

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("quality:1.4.0", Ref("quality", version="1.4.0")),
        ("a-b_c.d:2026-11-21", Ref("a-b_c.d", version="2026-11-21")),
        ("quality@champion", Ref("quality", alias="champion")),
        (f"quality@{DIGEST}", Ref("quality", digest=DIGEST)),
    ],
)
def test_references_are_parsed_and_written_alike(text: str, ref: Ref) -> None:
    assert parse_ref(text) == ref
    assert str(ref) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quality", "names no version"),
        ("Quality:1", "not a model name"),
        ("a/b:1", "not a model name"),
        ("quality:1+2", "not a version"),
        ("quality:latest", "not a version"),
        ("quality:", "not a version"),
        ("quality@sha256:12", "after '@'"),
        ("quality@1.0", "after '@'"),
        ("../x:1", "not a model name"),
    ],
)
def test_the_error_says_what_is_wrong_and_what_to_write(text: str, words: str) -> None:
    with pytest.raises(CallerError, match=words) as caught:
        parse_ref(text)
    assert "name:1.4.0" in caught.value.hint

"""What keeps manifests and blobs in the registry."""

from shoal_server.registry.reachability import Node, kept_blobs, kept_manifests


def _digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


A, B, C, D = (_digest(letter) for letter in "abcd")


def test_a_root_keeps_its_blobs_and_nothing_else() -> None:
    nodes = [Node("m", A, blobs=("x", "y")), Node("m", B, blobs=("y", "z")), Node("other", A, blobs=("w",))]
    kept = kept_manifests(nodes, roots=[("m", A)], tags=[])
    assert kept == {("m", A)}
    assert kept_blobs(nodes, kept) == {("m", "x"), ("m", "y")}


def test_referrers_stay_as_long_as_what_they_say_something_about() -> None:
    nodes = [Node("m", A), Node("m", B, subject=A), Node("m", C, subject=B), Node("m", D, subject=_digest("e"))]
    assert kept_manifests(nodes, roots=[("m", A)], tags=[]) == {("m", A), ("m", B), ("m", C)}
    assert kept_manifests(nodes, roots=[], tags=[]) == set()


def test_an_index_keeps_its_manifests_and_a_tagged_referrer_its_subject() -> None:
    nodes = [Node("m", A, manifests=(B,)), Node("m", B), Node("m", C, subject=D), Node("m", D)]
    kept = kept_manifests(nodes, roots=[], tags=[("m", "nightly", A), ("m", "report", C)])
    assert kept == {("m", A), ("m", B), ("m", C), ("m", D)}


def test_a_tag_that_stands_for_referrers_goes_with_what_it_is_named_after() -> None:
    nodes = [Node("m", A), Node("m", B, manifests=(C,)), Node("m", C)]
    stands_for = [("m", A.replace(":", "-"), B)]
    assert kept_manifests(nodes, roots=[("m", A)], tags=stands_for) == {("m", A), ("m", B), ("m", C)}
    assert kept_manifests(nodes, roots=[], tags=stands_for) == set()


def test_circles_and_names_that_are_not_there_do_no_harm() -> None:
    nodes = [Node("m", A, manifests=(B,)), Node("m", B, manifests=(A, D), subject=A)]
    assert kept_manifests(nodes, roots=[("m", B), ("m", C)], tags=[("n", "t", A)]) == {("m", A), ("m", B)}

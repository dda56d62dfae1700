"""Content codings of blobs: what is coded comes back, and never more than was signed."""

from __future__ import annotations

import random
import subprocess
import tracemalloc
from contextlib import suppress

import pytest

from shoal_protocol.bundle.codings import (
    DCZ,
    ZSTD,
    CodingError,
    Decoder,
    Encoder,
    dictionary_header,
    parse_dictionary_header,
)
from shoal_protocol.canonical import sha256_digest
from shoal_protocol.zstandard import zstandard

NOISE = random.Random(1).randbytes(300_000)
OLD, NEW = NOISE, NOISE[:150_000] + b"retrained" + NOISE[150_000:]
DICTIONARY = (sha256_digest(OLD), OLD)


def coded(blob: bytes, dictionary=None, *, step: int = 70_000) -> bytes:
    encoder = Encoder(len(blob), level=3, dictionary=dictionary)
    return b"".join(encoder.feed(blob[at : at + step]) for at in range(0, len(blob), step)) + encoder.finish()


def decoded(form: bytes, coding: str, size: int, dictionary=None, *, step: int = 5_000) -> bytes:
    decoder, found = Decoder(coding, size=size, dictionary=dictionary), b""
    for at in range(0, len(form), step):
        found += b"".join(decoder.feed(form[at : at + step]))
    decoder.finish()
    return found


@pytest.mark.parametrize("blob", [b"", b"x", NEW, b"same" * 100_000], ids=["empty", "a byte", "noise", "repeated"])
@pytest.mark.parametrize("step", [7, 39, 40, 41, 5_000])
def test_what_is_coded_comes_back_however_it_is_cut(blob, step):
    assert decoded(coded(blob), ZSTD, len(blob), step=step) == blob
    assert decoded(coded(blob, DICTIONARY), DCZ, len(blob), DICTIONARY, step=step) == blob


def test_a_patch_holds_little_more_than_what_is_new():
    assert len(coded(NEW)) > 290_000
    assert len(coded(NEW, DICTIONARY)) < 500


def test_others_read_these_forms(tmp_path):
    """The dcz form without its head is what `zstd -D`/`--patch-from` reads; the other is a plain .zst file."""
    for name, content in {"old": OLD, "form.zst": coded(NEW), "patch": coded(NEW, DICTIONARY)[40:]}.items():
        (tmp_path / name).write_bytes(content)
    program = "zstd"
    try:
        subprocess.run([program, "--version"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("the program zstd is not installed")
    for args in (["form.zst"], ["--patch-from=old", "patch"]):
        found = subprocess.run([program, "-dcf", *args], cwd=tmp_path, check=True, capture_output=True)
        assert found.stdout == NEW


@pytest.mark.parametrize("size", [0, 1, len(NEW) - 1])
def test_never_more_comes_out_than_was_signed(size):
    with pytest.raises(CodingError, match="more bytes than were signed"):
        decoded(coded(NEW), ZSTD, size)


def test_a_bomb_takes_no_memory():
    size = 200_000_000
    encoder = Encoder(size, level=1)
    bomb = b"".join(encoder.feed(bytes(1_000_000)) for _ in range(200)) + encoder.finish()
    assert len(bomb) < 50_000
    pieces = Decoder(ZSTD, size=1_000_000).feed(bomb)
    tracemalloc.start()
    with pytest.raises(CodingError, match="more bytes than were signed"):
        max(map(len, pieces))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000


def test_a_window_beyond_what_was_agreed_is_refused():
    """A frame may claim that it needs a gigabyte to be decoded (RFC 9659 bounds it to 8 MiB)."""
    key = zstandard().CompressionParameter
    compressor = zstandard().ZstdCompressor(options={key.window_log: 30})
    greedy = compressor.compress(NEW) + compressor.flush()
    with pytest.raises(CodingError, match="damaged"):
        decoded(greedy, ZSTD, len(NEW))
    with pytest.raises(CodingError, match="damaged"):
        decoded(coded(NEW, DICTIONARY)[:40] + greedy, DCZ, len(NEW), DICTIONARY)


@pytest.mark.parametrize("cut", [0, 1, 39, 40, 41, 60, -1])
def test_what_ends_early_is_not_taken_for_whole(cut):
    for form, coding, dictionary in ((coded(NEW), ZSTD, None), (coded(NEW, DICTIONARY), DCZ, DICTIONARY)):
        with pytest.raises(CodingError, match="short of what was signed|damaged"):
            decoded(form[:cut], coding, len(NEW), dictionary)


def test_what_follows_the_end_is_refused():
    for tail in (b"x", coded(b"second frame")):
        with pytest.raises(CodingError, match="bytes follow"):
            decoded(coded(NEW) + tail, ZSTD, len(NEW))
        with pytest.raises(CodingError, match="bytes follow"):
            decoded(coded(NEW) + tail, ZSTD, len(NEW), step=len(coded(NEW)))


def test_a_patch_against_something_else_is_refused():
    other = (sha256_digest(b"other" * 9), b"other" * 9)
    with pytest.raises(CodingError, match="another dictionary"):
        decoded(coded(NEW, DICTIONARY), DCZ, len(NEW), other)
    with pytest.raises(CodingError, match="expected the coding"):
        Decoder(DCZ, size=1)
    with pytest.raises(CodingError, match="gzip"):
        Decoder("gzip", size=1)


def test_damage_never_comes_back_as_something_longer():
    form, chance = coded(NEW, DICTIONARY), random.Random(2)
    for _ in range(60):
        at = chance.randrange(len(form))
        broken = form[:at] + bytes([form[at] ^ 1 << chance.randrange(8)]) + form[at + 1 :]
        with suppress(CodingError):
            assert len(decoded(broken, DCZ, len(NEW), DICTIONARY)) == len(NEW)  # its digest then tells


def test_an_encoder_holds_to_the_announced_size():
    short = Encoder(10, level=3)
    short.feed(b"123")
    with pytest.raises(CodingError, match="announced"):
        short.finish()


def test_a_header_names_one_digest():
    assert parse_dictionary_header(dictionary_header(DICTIONARY[0])) == DICTIONARY[0]
    for wrong in ("", ":", "::", "x" * 46, ":" + "!" * 44 + ":", ":" + "é" * 44 + ":", ":" + "A" * 44 + ":"):
        assert parse_dictionary_header(wrong) is None

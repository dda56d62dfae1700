import json
from pathlib import Path

from shoal_protocol.mqtt.asyncapi import document, printed
from shoal_protocol.mqtt.topics import Down, Up, parse_topic

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_printed_document_is_that_of_the_code() -> None:
    assert (DOCS / "reference" / "asyncapi.json").read_text() == printed(), (
        "renew it: python -m shoal_protocol.mqtt.asyncapi > docs/reference/asyncapi.json"
    )


def test_every_topic_has_a_channel_whose_address_parses() -> None:
    channels = document()["channels"]
    addresses = [c["address"].replace("{device}", "cam-1") for name, c in channels.items() if name != "status"]
    assert {parse_topic(address).kind for address in addresses} == {*Up, *Down}


def test_every_reference_leads_somewhere() -> None:
    whole = document()
    text = json.dumps(whole)
    references = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    for reference in references:
        node = whole
        for key in reference.removeprefix("#/").split("/"):
            assert key in node, reference
            node = node[key]

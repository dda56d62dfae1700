"""`shoalctl contract`: files that people have against contracts that people write, and what the fleet broke."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from shoal_server.ctl.cli import run
from shoal_server.ctl.program import Program

ROWS = "age,city,load,code,member\n30,Bern,1,1,True\n-4,Genf,2,2,False\n,Bern,x,3,true\n200,,3,1,\n"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def invoke(contract: str, *more: str) -> tuple[int, str]:
        (tmp_path / "rows.csv").write_text(ROWS)
        (tmp_path / "contract.yaml").write_text(contract)
        words = ["contract", "check", str(tmp_path / "rows.csv"), str(tmp_path / "contract.yaml"), *more]
        code = run(words, Program({"XDG_CONFIG_HOME": str(tmp_path)}))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return invoke


def test_each_rule_is_told_with_rows_and_an_example(check: Run) -> None:
    contract = (
        "fields: {age: {range: [0, 120], missing: 0.5}, city: {categories: [Bern]}, load: {range: [0, 9]},"
        " code: {categories: [1, 2, 3]}, absent: {missing: 0}}"
    )
    code, out = check(contract, "--json")
    found = {one["rule"]: one for one in json.loads(out)["rules"]}
    assert code == 3
    age = found["age must be from 0 to 120"]
    assert (age["violations"], age["first_rows"], age["example"], age["broken"]) == (2, [2, 4], "-4.0", True)
    assert (found["age must not be missing"]["violations"], found["age must not be missing"]["broken"]) == (1, False)
    assert found["city must be one of Bern"]["example"] == "'Genf'"
    assert (found["load must be from 0 to 9"]["violations"], found["load must be from 0 to 9"]["example"]) == (1, "'x'")
    assert found["code must be one of 1, 2, 3"]["violations"] == 0
    assert (found["absent must not be missing"]["rows"], found["absent must not be missing"]["broken"]) == (0, True)
    assert "no such column" in check(contract)[1]


def test_a_kept_contract_is_a_success(check: Run) -> None:
    code, out = check("fields: {code: {range: [1, 3], missing: 0}}")
    assert (code, out.count("kept"), "BROKEN" in out) == (0, 2, False)


def test_true_and_false_are_the_1_and_0_that_a_model_sees(check: Run) -> None:
    assert check("fields: {member: {range: [0, 1]}}")[0] == 0
    code, out = check("fields: {member: {range: [1, 1]}}", "--json")
    assert (code, json.loads(out)["rules"][0]["first_rows"]) == (3, [2])


@pytest.mark.parametrize(
    ("contract", "said"),
    [
        ("fields: {a: {rnage: [0, 1]}}", "do you mean range?"),
        ("- a", "expected a mapping (fields: {age: {range: [0, 120]}}), got a list"),
        ("", "got nothing: it is empty"),
        ("fields: [", "can't be read"),
        ("fields:\n\ta: {range: [0, 1]}\n", "hint: indent with spaces: YAML takes no tabs"),
        ("fields:\n  a: {range: [0, 1]}\n  a: {missing: 0}\n", "'a' (lines 2 and 3)"),
        ("fields: {a: {range: [0, 1], range: [0, 2]}}", "'range' (lines 1 and 1)"),
        ("a: &x {b: *x, c: 1}", "there is no `fields`"),
    ],
)
def test_a_faulty_contract_is_a_usage_error(check: Run, contract: str, said: str) -> None:
    code, out = check(contract)
    assert code == 2
    assert said in out


def test_show_prints_who_breaks_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = {
        "rule": "age must be from 0 to 120", "action": "count", "rows": 300, "violations": 8, "broken": True,
        "devices": [{"device": "cam-2", "violations": 5}],
    }  # fmt: skip

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/api/v1/contracts":
            assert dict(request.url.params) == {"slot": "quality", "hours": "24.0"}
            return httpx2.Response(200, json={"items": [{"slot": "quality", "digest": "sha256:ab", "rules": [rule]}]})
        return httpx2.Response(404, json={"detail": "there is no such thing"})

    program = Program({"XDG_CONFIG_HOME": str(tmp_path)}, transport=httpx2.MockTransport(answer))
    assert run(["contract", "show", "quality", "--hours", "24"], program) == 0
    out = capsys.readouterr().out
    assert "age must be from 0 to 120" in out
    assert "BROKEN" in out
    assert "cam-2 (5)" in out


def test_a_contract_is_set_read_and_cleared_at_the_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept: dict[str, object] = {}

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/api/v1/contracts/risk/derived":
            assert dict(request.url.params) == {"version": "1.4.0"}
            return httpx2.Response(200, json={"fields": {"age": {"range": [0, 120]}}})
        assert request.url.path == "/api/v1/contracts/risk"
        if request.method == "PUT":
            kept["contract"] = json.loads(request.content)
            return httpx2.Response(200, json={"rules": ["age must be from 0 to 120"], **kept})
        if request.method == "DELETE":
            return httpx2.Response(200, json={"contract": kept.pop("contract")})
        return httpx2.Response(200, json=kept)

    program = Program({"XDG_CONFIG_HOME": str(tmp_path)}, transport=httpx2.MockTransport(answer))
    assert run(["contract", "derive", "risk:1.4.0"], program) == 0
    written = tmp_path / "contract.yaml"
    written.write_text(capsys.readouterr().out)
    assert run(["contract", "set", "risk", str(written)], program) == 0
    assert "risk: 1 rule is set" in capsys.readouterr().out
    assert kept["contract"] == {"fields": {"age": {"range": [0, 120]}}}
    assert run(["contract", "get", "risk"], program) == 0
    assert capsys.readouterr().out == written.read_text()
    assert run(["contract", "clear", "risk"], program) == 0
    assert kept == {}
    assert run(["contract", "set", "risk", str(tmp_path / "absent.yaml")], program) == 2
    assert "can't be read" in capsys.readouterr().err

"""Settings: flag > environment > file > default, and every fault named."""

from __future__ import annotations

import os

import pytest

from shoal_agent import Agent
from shoal_agent.errors import SettingsError
from shoal_agent.settings import (
    Settings,
    given_settings,
    join_token,
    load_settings,
    logs_to_journal,
    misspelt_variables,
    names,
    nearest,
    of_file,
    state_folder,
    variable,
)  # fmt: skip


@pytest.fixture
def state(tmp_path):
    (tmp_path / "config.toml").write_text("window_s = 60\npoll_s = 5\n[trial]\nseconds = 30\npredictions = 7\n")
    return tmp_path


def test_defaults(tmp_path):
    assert load_settings(state=tmp_path, environment={}) == Settings()


def test_the_order_of_the_sources(state):
    environment = {"SHOAL_WINDOW_S": "90", "SHOAL_TRIAL_SECONDS": "99"}
    settings = load_settings({"window_s": "120", "listen": None}, state=state, environment=environment)
    assert (settings.window_s, settings.trial_seconds, settings.trial_predictions) == (120.0, 99.0, 7)
    assert (settings.poll_s, settings.listen) == (5.0, "127.0.0.1:8130")


def test_a_configuration_file_elsewhere_replaces_the_one_in_the_state_folder(state, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text("[download]\nmax_bytes_per_s = 1000\n")
    settings = load_settings(state=state, environment={"SHOAL_CONFIG": str(other)})
    assert (settings.window_s, settings.download_max_bytes_per_s) == (300.0, 1000.0)
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(state=state, config=tmp_path / "none.toml", environment={})


def test_all_faults_are_reported_together(state):
    with pytest.raises(SettingsError) as caught:
        load_settings({"window": 1, "window_s": "-1"}, state=state, environment={"SHOAL_SPOOL_BYTES": "many"})
    for part in ("'window'", "window_s = '-1'", "SHOAL_SPOOL_BYTES"):
        assert part in str(caught.value)


def test_a_file_that_does_not_parse_is_named(tmp_path):
    (tmp_path / "config.toml").write_text("window_s = = 3")
    with pytest.raises(SettingsError, match=r"config\.toml does not parse"):
        load_settings(state=tmp_path, environment={})


def test_every_setting_has_a_variable_of_its_own():
    variables = [variable(name) for name in names()]
    assert len(set(variables)) == len(variables)
    assert variable("download.max_bytes_per_s") == "SHOAL_DOWNLOAD_MAX_BYTES_PER_S"


def test_the_state_folder_and_the_token_can_come_from_the_environment(tmp_path):
    assert str(state_folder(None, {"SHOAL_STATE": "/x"})) == "/x"
    assert str(state_folder("/y", {"SHOAL_STATE": "/x"})) == "/y"
    secret = tmp_path / "token"
    secret.write_text("sjt_abc\n")
    assert join_token(None, {"SHOAL_TOKEN_FILE": str(secret)}) == "sjt_abc"
    assert join_token("flag", {"SHOAL_TOKEN": "sjt_env"}) == "flag"
    with pytest.raises(SettingsError, match="no join token"):
        join_token(None, {})


def test_each_value_tells_where_it_comes_from(state):
    given = given_settings({"poll_s": 1}, state=state, environment={"SHOAL_WINDOW_S": "90"})
    file = state / "config.toml"
    assert {name: one.source for name, one in given.items()} == {
        "window_s": "SHOAL_WINDOW_S",
        "poll_s": "the command line",
        "trial.seconds": f"{file}:4",
        "trial.predictions": f"{file}:5",
    }


def test_lines_are_told_of_every_form_that_people_write(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('# x\ntrial.seconds = 3\n\n[ "download" ] # y\nmax_bytes_per_s=1\n[log]\n"level" = "info"\n')
    lines = {name: one.source.rpartition(":")[2] for name, one in of_file(file).items()}
    assert lines == {"trial.seconds": "2", "download.max_bytes_per_s": "5", "log.level": "7"}
    file.write_text("trial = { seconds = 3 }\n")
    assert of_file(file)["trial.seconds"].value == 3


def test_a_wrong_name_is_told_with_its_line_and_the_nearest_right_one(tmp_path):
    (tmp_path / "config.toml").write_text("[trial]\nsecond = 3\n")
    with pytest.raises(SettingsError, match=r"config\.toml:2 names 'trial\.second'.* is trial\.seconds meant"):
        load_settings(state=tmp_path, environment={})
    assert nearest("max_bytes_per_s") == "download.max_bytes_per_s"
    assert nearest("zzzz") is None
    environment = {"SHOAL_TRIAL_SECOND": "3", "SHOAL_URL": "x", "SHOAL_STATE": "y", "SHOAL_WINDOW_S": "1"}
    assert misspelt_variables(environment) == {"SHOAL_TRIAL_SECOND": "SHOAL_TRIAL_SECONDS"}


def test_the_journal_is_known_by_the_very_file():
    error = os.fstat(2)
    assert logs_to_journal({"JOURNAL_STREAM": f"{error.st_dev}:{error.st_ino}"})
    assert not logs_to_journal({"JOURNAL_STREAM": "1:2"})
    assert not logs_to_journal({})


def test_a_program_that_embeds_the_agent_is_told_of_its_own_mistake(tmp_path):
    with pytest.raises(SettingsError, match="this program names 'windows', which is no setting"):
        Agent(tmp_path, {"windows": 60})
    assert Agent(tmp_path, {"window_s": 60, "poll_s": None}).settings.window_s == 60.0

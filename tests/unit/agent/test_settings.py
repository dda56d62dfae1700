"""Settings: flag > environment > file > default, and every fault named."""

from __future__ import annotations

import pytest

from shoal_agent.errors import SettingsError
from shoal_agent.settings import Settings, join_token, load_settings, names, state_folder, variable


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

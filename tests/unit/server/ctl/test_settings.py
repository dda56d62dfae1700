"""Which server, as whom: flag > environment > file > default."""

from pathlib import Path

import pytest

from shoal_server.ctl.errors import FileError, SettingsError
from shoal_server.ctl.settings import Flags, Settings, settings_from, settings_path, write_settings


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def _remember(environment: dict[str, str], **values: str) -> Path:
    path = settings_path(environment)
    write_settings(path, Settings(**{"url": "https://remembered", **values}))
    return path


def test_without_anything_it_is_this_machine(environment: dict[str, str]) -> None:
    assert settings_from(environment, Flags()) == Settings(url="http://127.0.0.1:8080")


def test_a_flag_beats_the_environment_which_beats_the_file(environment: dict[str, str]) -> None:
    _remember(environment, token="file")
    assert settings_from(environment, Flags()).token == "file"
    environment |= {"SHOAL_URL": "https://named", "SHOAL_TOKEN": "env"}
    assert settings_from(environment, Flags()) == Settings(url="https://named", token="env")
    flags = Flags(url="typed:8080", token="flag")
    assert settings_from(environment, flags) == Settings(url="http://typed:8080", token="flag")


def test_a_remembered_token_is_for_its_own_server_only(environment: dict[str, str]) -> None:
    _remember(environment, token="secret")
    assert settings_from(environment, Flags(url="https://elsewhere")).token is None
    assert settings_from(environment, Flags(url="https://remembered/")).token == "secret"


def test_a_token_may_stand_in_a_file(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert settings_from(environment | {"SHOAL_TOKEN_FILE": str(file)}, Flags()).token == "from-file"
    assert settings_from(environment, Flags(token_file=file)).token == "from-file"
    with pytest.raises(FileError, match="can't be read"):
        settings_from(environment, Flags(token_file=tmp_path / "absent"))


def test_the_file_is_private_and_must_stay_so(environment: dict[str, str]) -> None:
    path = _remember(environment, token='with "quotes" and \\')
    assert path.stat().st_mode & 0o777 == 0o600
    assert settings_from(environment, Flags()).token == 'with "quotes" and \\'
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="others can read it"):
        settings_from(environment, Flags())


def test_a_damaged_file_is_told(environment: dict[str, str]) -> None:
    path = _remember(environment)
    path.write_text("url = 7\nnonsense = true\n")
    with pytest.raises(SettingsError, match="nonsense, url"):
        settings_from(environment, Flags())


def test_flags_of_the_command_win_over_those_before_it() -> None:
    outer = Flags(url="outer", token="t")
    assert Flags(url="inner").over(outer) == Flags(url="inner", token="t")
    assert Flags(token_file=Path("f")).over(outer) == Flags(url="outer", token_file=Path("f"))

from __future__ import annotations

from pathlib import Path

from backend.settings import Settings


def test_alone_on_a_machine_the_folders_at_hand_are_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    settings = Settings(home=tmp_path / "home")

    assert settings.roots == [tmp_path, tmp_path / "me", *own(settings)]


def test_a_team_allows_its_own_folders_alone(tmp_path):
    settings = Settings(home=tmp_path / "home", token="secret")

    assert settings.roots == own(settings)


def test_named_roots_replace_the_folders_at_hand(tmp_path):
    given = [tmp_path / "a", tmp_path / "b"]
    settings = Settings(home=tmp_path / "home", allowed_roots=":".join(map(str, given)))

    assert settings.roots == [*given, *own(settings)]


def own(settings: Settings) -> list[Path]:
    return [settings.home / "models", settings.home / "data"]

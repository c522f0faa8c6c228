"""Finding recordings: folders, files and patterns, and an id for each."""

from __future__ import annotations

import os

import pytest

from speechtaxi import audio
from speechtaxi.errors import InputError


@pytest.fixture
def folder(tmp_path, tone, monkeypatch):
    """Return a function that writes recordings in the present folder."""
    monkeypatch.chdir(tmp_path)

    def write(*names: str) -> None:
        for name in names:
            tone(name, seconds=0.1)

    return write


def found(*paths: str, **patterns) -> list[str]:
    return [path.as_posix() for path in audio.find_audio(paths, **patterns)]


def ids(*paths: str, **patterns) -> dict[str, str]:
    return {name: path.as_posix() for name, path in audio.find_recordings(paths, **patterns)}


def test_find_audio(tmp_path, tone, monkeypatch):
    for name in ("d/b.wav", "d/a.FLAC", "d/sub/c.wav", "d/.hidden/x.wav", "odd.bin.wav"):
        tone(name)
    (tmp_path / "d" / "notes.txt").write_text("no")
    (tmp_path / "odd.bin.wav").rename(tmp_path / "odd.bin")
    monkeypatch.chdir(tmp_path)
    found = [path.as_posix() for path in audio.find_audio(["d", "odd.bin", "d/*.wav"])]
    assert found == ["d/a.FLAC", "d/b.wav", "d/sub/c.wav", "odd.bin", "d/b.wav"]
    for name, message in (("none", "no such file"), ("*.mp3", "no pattern"), ("e", "no audio")):
        (tmp_path / "e").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=message):
            list(audio.find_audio([name]))


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), ["2023/a.wav", "2024/a.wav", "2024/june/b.flac", "c.wav"]),
        (["2024/*"], (), ["2024/a.wav", "2024/june/b.flac"]),
        (["*.wav"], (), ["2023/a.wav", "2024/a.wav", "c.wav"]),
        (["**/a.wav"], (), ["2023/a.wav", "2024/a.wav"]),
        (["**/c.wav"], (), ["c.wav"]),
        (["2024/**/b.flac", "c.*"], (), ["2024/june/b.flac", "c.wav"]),
        (["2024/**/a.wav"], (), ["2024/a.wav"]),
        (["202[34]/?.wav"], (), ["2023/a.wav", "2024/a.wav"]),
        ((), ["*/june/*", "c.wav"], ["2023/a.wav", "2024/a.wav"]),
        (["2024/*"], ["*.flac"], ["2024/a.wav"]),
    ],
)
def test_patterns_choose_among_paths_below_the_folder(folder, include, exclude, expected):
    folder("d/2023/a.wav", "d/2024/a.wav", "d/2024/june/b.flac", "d/c.wav")
    assert list(ids("d", include=include, exclude=exclude)) == expected
    assert found("d", include=include, exclude=exclude) == [f"d/{name}" for name in expected]


def test_files_named_themselves_are_always_taken(folder):
    folder("d/a.wav", "d/b.wav")
    assert found("d/a.wav", "d", exclude=["a.wav"]) == ["d/a.wav", "d/b.wav"]


@pytest.mark.parametrize("patterns", [{"include": ["*.mp3", "A.wav"]}, {"exclude": ["*"]}])
def test_patterns_that_leave_nothing_are_told(folder, patterns):
    folder("d/a.wav")
    with pytest.raises(InputError, match=r"leave none of its 1 .* paths such as a\.wav$"):
        found("d", **patterns)


def test_an_id_is_the_path_below_the_folder(folder, tmp_path):
    folder("d/a.wav", "d/sub/b.wav", "e/c.wav")
    expected = {"a.wav": "d/a.wav", "sub/b.wav": "d/sub/b.wav", "c.wav": "e/c.wav"}
    assert ids("d", "e/c.wav") == expected
    assert ids("d/", "./e/*.wav") == expected
    assert list(ids(str(tmp_path / "d"))) == ["a.wav", "sub/b.wav"]


def test_ids_that_would_be_alike_grow_until_they_differ(folder):
    folder("x/d/a.wav", "y/d/a.wav", "y/d/b.wav", "d/a.wav")
    assert ids("x/d", "y/d") == {
        "x/d/a.wav": "x/d/a.wav",
        "y/d/a.wav": "y/d/a.wav",
        "b.wav": "y/d/b.wav",
    }
    assert list(ids("x/d/a.wav", "y/d/b.wav")) == ["a.wav", "b.wav"]
    # "d/a.wav" would be the id of one in "y" and, grown, of another.
    four = audio.find_recordings(["y", "d", "x/d"])
    names = [name for name, _ in four]
    assert len(names) == len(set(names)) == 4


def test_a_file_named_twice_is_one_recording(folder, tmp_path):
    folder("d/a.wav", "d/sub/b.wav")
    assert ids("d/sub/b.wav", "d", "d/*.wav", str(tmp_path / "d")) == {
        "b.wav": "d/sub/b.wav",
        "a.wav": "d/a.wav",
    }


def test_names_that_are_not_utf_8_get_an_id_that_can_be_written(folder, tmp_path):
    folder("d/a.wav", "d/x.wav")
    os.rename(b"d/a.wav", b"d/caf\xe9.wav")
    name, path = next(audio.find_recordings(["d"]))
    assert name == "caf\\xe9.wav"
    assert len(audio.load(path)) == 1_600


def test_circles_of_links_and_what_is_no_file_are_passed_over(folder):
    folder("d/a.wav")
    os.mkfifo("d/pipe.wav")
    os.mkdir("d/folder.wav")
    for name, target in {"up": "..", "here": ".", "me.wav": "me.wav", "lost.wav": "no.wav"}.items():
        os.symlink(target, f"d/{name}")
    os.symlink("a.wav", "d/link.wav")
    assert found("d") == ["d/a.wav", "d/link.wav"]
    assert found("d*") == ["d/a.wav", "d/link.wav"]
    assert set(found("d/**")) == {"d/a.wav", "d/link.wav"}
    for name in ("d/me.wav", "d/lost.wav", "x" * 5_000):
        with pytest.raises(InputError, match="no such file or folder"):
            found(name)


def test_globs_pass_over_what_is_hidden_unless_it_is_named(folder):
    folder("d/a.wav", "d/.b.wav", ".e/c.wav")
    assert found("d/*.wav") == ["d/a.wav"]
    assert found("*/*.wav") == found("*/**.wav") == found("**/a**") == ["d/a.wav"]
    assert found("d/.*.wav") == ["d/.b.wav"]
    os.chdir("d")
    assert found("../?/a.wav") == ["../d/a.wav"]
    with pytest.raises(InputError, match="no pattern"):
        found("../e*")

"""Decoding: every kind of file comes out alike, and every broken one is named."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from speechtaxi import audio
from speechtaxi.errors import InputError

RATE = 44_100


def chirp(seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """A sweep, so that no two moments sound alike: (samples,)."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (200 + 150 * time) * time)).astype(np.float32)


def encode(path, codec: str, rate: int, channels: str = "stereo") -> None:
    """Write the chirp with FFmpeg, as a phone or a browser would."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=channels)
        wave = np.stack([chirp()] * 2)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        context = stream.codec_context
        resampler = av.AudioResampler(
            context.format, channels, rate, frame_size=context.frame_size or 1024
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))


def lag(clip: np.ndarray, whole: np.ndarray, start: float) -> int:
    """How many samples after `start` the clip begins in `whole`."""
    first, middle = round(start * audio.SAMPLE_RATE), clip[1000:9000]
    return max(range(-600, 600), key=lambda k: middle @ whole[first + k + 1000 : first + k + 9000])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_any_rate_becomes_16_khz(tmp_path, name, rate):
    soundfile.write(tmp_path / name, chirp(rate=rate), rate)
    wave = audio.load(tmp_path / name)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert len(wave) == pytest.approx(48_000, abs=1_200 if name == "a.mp3" else 1)
    inner = slice(2_000, 40_000)  # the ends ring
    assert np.corrcoef(wave[inner], chirp(rate=16_000)[inner])[0, 1] > 0.98
    info = audio.probe(tmp_path / name)
    assert (info.sample_rate, info.channels) == (rate, 1)
    assert info.seconds == pytest.approx(3.0, abs=0.08)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.m4a", "aac", 44_100),
        ("a.mp4", "aac", 48_000),
        ("a.aac", "aac", 44_100),
        ("a.webm", "libopus", 48_000),
        ("a.mkv", "aac", 44_100),
    ],
)
def test_what_libsndfile_cannot_read(tmp_path, name, codec, rate):
    path = tmp_path / name
    encode(path, codec, rate)
    whole = audio.load(path)
    assert len(whole) == pytest.approx(48_000, abs=3_000)  # AAC pads its ends
    skipped = 1024 * 16_000 // RATE if name == "a.aac" else 0  # raw AAC does not tell its priming
    assert abs(lag(whole[8_000 + skipped :], chirp(rate=16_000), 0.5)) <= 2
    clip = audio.load(path, 1.25, 1.0)
    assert len(clip) == 16_000
    assert abs(lag(clip, whole, 1.25)) <= 16  # Matroska counts in milliseconds
    info = audio.probe(path)
    assert (info.sample_rate, info.channels) == (rate, 2)
    assert info.seconds == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_segment_is_the_same_piece_of_the_whole(tmp_path, name):
    soundfile.write(tmp_path / name, chirp(rate=16_000), 16_000)
    whole = audio.load(tmp_path / name)
    np.testing.assert_array_equal(audio.load(tmp_path / name, 1.0, 0.5), whole[16_000:24_000])
    np.testing.assert_array_equal(audio.load(tmp_path / name, 2.5), whole[40_000:])
    np.testing.assert_array_equal(audio.load(tmp_path / name, 2.5, 0.6), whole[40_000:])


def test_only_the_segment_is_decoded(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.flac", chirp(rate=16_000), 16_000)
    read = soundfile.SoundFile.read
    wanted = []
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, n, **kw: wanted.append(n) or read(self, n, **kw)
    )
    audio.load(tmp_path / "a.flac", 1.0, 0.5)
    assert wanted == [8_000]


def test_channels_are_averaged(tmp_path):
    waves = np.stack([np.full(16_000, level) for level in (0.0, 0.3, 0.6)], axis=1)
    soundfile.write(tmp_path / "a.wav", waves, 16_000)
    np.testing.assert_allclose(audio.load(tmp_path / "a.wav"), 0.3, atol=1e-4)


def test_loud_files_are_clipped(tmp_path):
    soundfile.write(tmp_path / "a.wav", chirp() * 100, RATE, subtype="FLOAT")
    wave = audio.load(tmp_path / "a.wav")
    assert wave.min() == -1
    assert wave.max() == 1


def test_a_wrong_name_does_not_matter(tone):
    path = tone("a.flac")
    for name in ("a.wav", "a.raw", "a.txt", "a"):
        np.testing.assert_array_equal(audio.load(path.rename(path.with_name(name))), wave(tone))
        path = path.with_name(name)


def wave(tone) -> np.ndarray:
    return audio.load(tone("reference.flac"))


def refused(path, message, *segment) -> None:
    with pytest.raises(InputError, match=message) as error:
        audio.load(path, *segment)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_audio_is_named(tmp_path):
    refused(tmp_path / "none.wav", "no such file")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "the file is empty")
    (tmp_path / "page.wav").write_text("<!DOCTYPE html>" * 50)
    refused(tmp_path / "page.wav", "not audio, or damaged; it begins with b'<!DOCTYPE html>")
    (tmp_path / "notes.txt").write_text("some words\n" * 50)  # FFmpeg takes it for a terminal
    refused(tmp_path / "notes.txt", "no audio stream; as tty it holds video")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")
    refused(tmp_path / "list.m3u8", "not audio|no audio stream|damaged")
    with pytest.raises(InputError, match="begins with"):
        audio.probe(tmp_path / "page.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_truncated_file_is_named(tone, name):
    path = tone(name, seconds=3.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    refused(path, "truncated")


def test_a_truncated_mp3_gives_what_is_there(tone):
    path = tone("a.mp3", seconds=3.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert 24_000 < len(audio.load(path)) < 40_000


def test_a_truncated_m4a_is_named(tmp_path):
    encode(tmp_path / "a.m4a", "aac", RATE)
    data = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "a.m4a", "not audio, or damaged")


def test_a_wav_from_a_pipe_tells_no_size_and_is_whole(tone):
    path = tone("a.wav")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(audio.load(path)) == 16_000
    assert audio.probe(path).seconds == 1.0


def test_a_flac_from_a_pipe_tells_no_length_and_is_whole(tone):
    path = tone("a.flac")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO's 36 bits for the number of samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert len(audio.load(path)) == 16_000
    clip = audio.load(path, 0.5, 0.25)
    np.testing.assert_allclose(clip, audio.load(path)[8_000:12_000], atol=1e-6)
    assert audio.probe(path).seconds == 1.0


def test_segments_beyond_the_end_are_named(tmp_path, tone):
    path = tone("a.wav")
    refused(path, "begins at 2.0 s, after the end", 2.0)
    refused(path, "from 0.5 s should last 2.0 s, but the file ends after 0.50 s", 0.5, 2.0)
    encode(tmp_path / "a.m4a", "aac", RATE)
    refused(tmp_path / "a.m4a", "begins at 9.0 s, after the end", 9.0, 1.0)
    refused(tmp_path / "a.m4a", "from 2.0 s should last 5.0 s", 2.0, 5.0)


def test_short_clips(tone):
    refused(tone("short.wav", seconds=0.05), "only 0.050 s of audio; at least 0.1 s needed")
    assert len(audio.load(tone("a.wav", seconds=0.1))) == 1_600
    refused(tone("a.wav"), "only 0.050 s", 0.2, 0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers(tmp_path, bad):
    samples = chirp()
    samples[100] = bad
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    refused(tmp_path / "a.wav", "samples that are not numbers")


def test_digest_is_of_bytes_and_segment(tone):
    path, copy = tone("a.wav"), tone("b/copy.wav")
    assert audio.digest(path) == audio.digest(copy)
    assert audio.digest(path, 0, 1) == audio.digest(copy, 0.0, 1.0)
    others = {
        audio.digest(path),
        audio.digest(path, 0.5),
        audio.digest(path, 0.0, 1.0),
        audio.digest(tone("c.wav", hertz=441)),
    }
    assert len(others) == 4
    with pytest.raises(InputError, match="no such file"):
        audio.digest(path.with_name("none.wav"))


def test_silence():
    quiet = chirp() * 10 ** (-45 / 20)  # about -59 dBFS
    assert not audio.is_silent(quiet)
    assert audio.is_silent(quiet / 2)


def test_a_clip_that_is_held_is_not_decoded_again(tone):
    path = tone()
    wave = audio.load(path, 0.25, 0.5)
    audio.hold(wave, path, 0.25, 0.5)
    assert audio.load(path, 0.25, 0.5) is wave
    assert audio.load(str(path), 0.25, 0.5) is wave
    assert len(audio.load(path)) == 16_000
    assert len(audio.load(path, 0.25)) == 12_000
    path.unlink()
    assert audio.load(path, 0.25, 0.5) is wave
    del wave
    with pytest.raises(InputError, match="no such file"):
        audio.load(path, 0.25, 0.5)


@pytest.mark.assets
def test_real_speech(assets):
    speech = assets / "data" / "speech"
    assert len(audio.load(speech / "fixtures" / "jfk.flac")) == pytest.approx(176_000, abs=200)
    assert len(audio.load(speech / "bibletts_samples" / "ewe.flac")) == pytest.approx(
        18.13 * 16_000, abs=200
    )
    shortest = min((speech / "fsdd").glob("*.flac"), key=lambda path: audio.probe(path).seconds)
    assert not audio.is_silent(audio.load(shortest))

"""Streaming: the samples that load gives, in their places, from any container, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from speechtaxi import audio
from speechtaxi.audio import decode
from speechtaxi.errors import InputError

CONTAINERS = {  # codec, rate, channels; None: libsndfile writes it
    "a.wav": None,
    "a.flac": None,
    "a.mp3": None,
    "vorbis.ogg": None,
    "opus.ogg": None,
    "a.m4a": ("aac", 44_100, "stereo"),
    "a.aac": ("aac", 48_000, "mono"),
    "a.webm": ("libopus", 48_000, "stereo"),
    "a.mkv": ("flac", 16_000, "5.1"),
    "video.mp4": ("aac", 44_100, "stereo"),
    "a.mov": ("pcm_s24le", 48_000, "stereo"),
    "a.ts": ("aac", 48_000, "stereo"),
    "a.avi": ("libmp3lame", 44_100, "stereo"),
    "a.wma": ("wmav2", 44_100, "stereo"),
    "a.amr": ("libopencore_amrnb", 8_000, "mono"),
    "a.3gp": ("libopencore_amrnb", 8_000, "mono"),
}


def noise(seconds: float, rate: int) -> np.ndarray:
    """Dull noise, so that no two moments are alike and every codec keeps it: (samples,)."""
    steps = np.random.default_rng(0).standard_normal(round(seconds * rate / 16) + 16)
    return (0.1 * soxr.resample(steps, 1, 16)[: round(seconds * rate)]).astype(np.float32)


def encode(path: Path, codec: str, rate: int, layout: str, wave: np.ndarray) -> None:
    """Write (samples,) with FFmpeg, in a file whose name begins with "video" beside a picture."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if path.name.startswith("video"):
            film = container.add_stream("mpeg4", rate=5)
            film.width = film.height = 64
            film.pix_fmt = "yuv420p"
            for number in range(5 * len(wave) // rate):
                picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, dtype=np.uint8))
                picture.pts = number
                container.mux(film.encode(picture))
            container.mux(film.encode(None))
        context = stream.codec_context
        context.bit_rate = context.bit_rate or 64_000
        context.open(strict=False)
        frame = av.AudioFrame.from_ndarray(wave[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(context.format, layout, rate, context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Return a function that gives a recording of three seconds by its name."""
    folder = tmp_path_factory.mktemp("sound")

    @cache
    def write(name: str) -> Path:
        if how := CONTAINERS[name]:
            encode(folder / name, *how, noise(3.0, how[1]))
        else:
            subtype = "OPUS" if name == "opus.ogg" else None
            soundfile.write(folder / name, noise(3.0, 24_000), 24_000, subtype=subtype)
        return folder / name

    return write


def decoded(path: Path) -> tuple[np.ndarray, int]:
    """A second implementation: all samples at once, (samples, channels), and their rate."""
    try:
        return soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        import av

        with av.open(str(path)) as container:
            rate = container.streams.audio[0].rate
            resampler = av.AudioResampler(format="fltp")
            frames = [
                piece.to_ndarray()
                for frame in container.decode(audio=0)
                for piece in resampler.resample(frame)
            ]
        return np.concatenate(frames, axis=1).T, rate


def fit(clip: np.ndarray, whole: np.ndarray, at: int) -> tuple[int, float]:
    """Return how many samples after `at` a clip lies in the whole, and its correlation there."""
    fits = {
        k: np.corrcoef(clip, whole[at + k : at + k + len(clip)])[0, 1] for k in range(-160, 161)
    }
    return max(fits.items(), key=lambda item: item[1])


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_blocks_are_the_file(sound, name):
    path = sound(name)
    blocks = list(audio.stream(path, block_seconds=0.7))
    assert {len(block) for block in blocks[:-1]} == {11_200}
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    wave, rate = decoded(path)
    expected = np.clip(soxr.resample(wave.mean(axis=1), rate, 16_000), -1, 1)
    assert len(expected) == pytest.approx(48_000, abs=3_000)  # codecs pad their ends
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate(blocks), audio.load(path))


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_moment_of_the_stream_is_where_load_finds_it(sound, name):
    path = sound(name)
    whole = np.concatenate(list(audio.stream(path)))
    clip = audio.load(path, 1.6, 1.0)
    assert len(clip) == 16_000
    shift, likeness = fit(clip[1_600:14_400], whole, 27_200)  # the ends ring
    assert abs(shift) <= 20  # Matroska, FLV and ASF count in milliseconds
    assert likeness > 0.98


def test_any_name_is_read(sound, tmp_path):
    for number, kind in enumerate(("a.wav", "a.m4a")):
        name = os.fsdecode(b"caf\xe9 %%d [%d].x" % number)
        (tmp_path / name).write_bytes(sound(kind).read_bytes())
        np.testing.assert_array_equal(audio.load(tmp_path / name), audio.load(sound(kind)))


def test_blocks_last_what_was_asked(sound):
    lengths = [len(block) for block in audio.stream(sound("a.wav"), 0.25, 2.0, block_seconds=0.5)]
    assert lengths == [8_000] * 4
    assert [len(block) for block in audio.stream(sound("a.wav"))] == [48_000]


@pytest.mark.parametrize(
    ("name", "segment"),
    [("none.wav", ()), ("empty.wav", ()), ("page.wav", ()), ("a.wav", (9.0,)), ("a.wav", (2.0, 5))],
)
def test_errors_are_those_of_load(sound, tmp_path, name, segment):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "page.wav").write_text("<!DOCTYPE html>" * 50)
    path = sound(name) if name in CONTAINERS else tmp_path / name
    with pytest.raises(InputError) as loading:
        audio.load(path, *segment)
    with pytest.raises(InputError) as streaming:
        list(audio.stream(path, *segment))
    assert str(streaming.value) == str(loading.value)


@pytest.mark.parametrize("segment", [(-1.0,), (np.nan,), (np.inf,), (0.0, 0.0), (0.0, -1.0)])
def test_impossible_segments(sound, segment):
    with pytest.raises(InputError, match="no segment begins at"):
        audio.load(sound("a.wav"), *segment)


# ------------------------------------------------------------------------------------ damage


def until_it_breaks(path: Path) -> tuple[np.ndarray, str]:
    """Return what a stream yields, and why it stops."""
    blocks: list[np.ndarray] = []
    with pytest.raises(InputError) as error:
        blocks.extend(audio.stream(path, block_seconds=0.2))
    return np.concatenate(blocks), str(error.value)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "video.mp4"])
def test_a_truncated_file_yields_what_is_there_then_raises(sound, tmp_path, name, monkeypatch):
    monkeypatch.setattr(decode, "_VALUES", 4_096)
    whole, data = audio.load(sound(name)), sound(name).read_bytes()
    if name == "video.mp4":  # its index lies at the end: keep that, and garble what it points to
        middle, end = len(data) // 2, data.rindex(b"moov") - 4
        data = data[:middle] + bytes(end - middle) + data[end:]
    else:
        data = data[: len(data) * 2 // 3]
    path = tmp_path / name
    path.write_bytes(data)
    wave, reason = until_it_breaks(path)
    assert "truncated" in reason or "damaged" in reason
    assert 16_000 < len(wave) < 36_000
    sure = len(wave) - 4_000
    np.testing.assert_allclose(wave[:sure], whole[:sure], atol=1e-3)
    with pytest.raises(InputError) as error:
        audio.load(path)
    assert str(error.value) == reason
    clip = audio.load(path, 0.3, 0.5)  # before the damage, but for the ends, which ring
    np.testing.assert_allclose(clip[100:-100], whole[4_900:12_700], atol=1e-3)


def remux(source: Path, target: Path, change) -> None:
    """Copy packets; `change` takes one and its seconds from the first, and tells whether to."""
    import av

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        first = None
        for packet in old.demux(audio=0):
            if packet.dts is None:
                continue
            first = packet.pts if first is None else first
            if change(packet, float((packet.pts - first) * packet.time_base)):
                packet.stream = stream
                new.mux(packet)


@pytest.mark.parametrize("name", ["a.webm", "a.ts", "a.mkv"])
def test_lost_packets_leave_silence_and_all_else_in_its_place(sound, tmp_path, name):
    remux(sound(name), tmp_path / name, lambda packet, seconds: not 1.0 < seconds < 2.0)
    whole, wave = audio.load(sound(name)), audio.load(tmp_path / name)
    assert len(wave) == pytest.approx(len(whole), abs=40)
    assert audio.is_silent(wave[18_000:30_000])
    for start, stop in ((1_000, 15_000), (33_600, 46_000)):
        shift, likeness = fit(wave[start:stop], whole, start)
        assert abs(shift) <= 20
        assert likeness > 0.98


@pytest.mark.parametrize("jump", [3600, 10**6])
def test_a_clock_that_jumps_is_not_believed(sound, tmp_path, jump):
    def late(packet, seconds: float) -> bool:
        if seconds > 1.5:
            packet.pts = packet.dts = packet.pts + round(jump / packet.time_base)
        return True

    remux(sound("a.webm"), tmp_path / "a.webm", late)
    assert len(audio.load(tmp_path / "a.webm")) == pytest.approx(48_000, abs=200)


@pytest.mark.parametrize("every", [20, 4])
def test_a_few_packets_may_be_broken(sound, tmp_path, every):
    import av

    path = sound("a.m4a")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    for start, size in packets[5::every]:
        data[start : start + size] = b"\xff" * size
    (tmp_path / "a.m4a").write_bytes(data)
    if every == 4:
        with pytest.raises(InputError, match=r"damaged: \d+ of \d+ packets do not decode"):
            audio.load(tmp_path / "a.m4a")
    else:
        assert len(audio.load(tmp_path / "a.m4a")) == pytest.approx(48_000, abs=10_000)


def test_many_channels(tmp_path):
    """PyAV shows eight planes of a frame with more, and reads beyond."""
    wave = noise(1.0, 16_000)
    encode(tmp_path / "a.wv", "wavpack", 16_000, "hexadecagonal", wave)
    loaded = audio.load(tmp_path / "a.wv")
    assert np.corrcoef(loaded, wave)[0, 1] > 0.99
    waves = np.stack([wave * k / 31 for k in range(32)], axis=1)
    soundfile.write(tmp_path / "a.wav", waves, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(audio.load(tmp_path / "a.wav"), wave / 2, atol=1e-6)


# ------------------------------------------------------------------------------------ memory

GROWTH = """
import resource, sys
from speechtaxi import audio
import av, soundfile, soxr
next(audio.stream(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
samples = sum(map(len, audio.stream(sys.argv[1])))
print(samples, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def growth(path: Path) -> tuple[int, int]:
    """Return how many samples a file has, and how many MiB streaming it takes on top of a block."""
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(path)], capture_output=True, text=True, check=True
    )
    samples, mebibytes = map(int, done.stdout.split())
    return samples, mebibytes


def test_six_hours_take_little_memory(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1.0, 16_000), 16_000, subtype="PCM_U8")
    size = 6 * 3600 * 16_000
    header = bytearray(path.read_bytes()[:44])
    header[4:8], header[40:44] = (n.to_bytes(4, "little") for n in (size + 36, size))
    path.write_bytes(header)
    os.truncate(path, 44 + size)  # a hole on the disk, which reads as zeros
    samples, mebibytes = growth(path)
    assert samples == 6 * 3600 * 16_000
    assert mebibytes < 20  # whole it is 1318


def test_ten_minutes_of_aac_take_little_memory(sound, tmp_path):
    frames = sound("a.aac").read_bytes()
    (tmp_path / "a.aac").write_bytes(frames * 200)
    samples, mebibytes = growth(tmp_path / "a.aac")
    assert samples > 600 * 16_000
    assert mebibytes < 20  # whole it is 37


def test_load_holds_so_much_and_no_more(sound, monkeypatch):
    monkeypatch.setattr(audio, "MAX_SECONDS", 2.0)
    with pytest.raises(InputError, match="hours of audio in one clip; cut it"):
        audio.load(sound("a.wav"))
    assert len(audio.load(sound("a.wav"), 0.0, 2.0)) == 32_000


def test_what_is_abandoned_is_closed(sound):
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a.wav", "a.m4a"):
        stream = audio.stream(sound(name), block_seconds=0.1)
        next(stream)
        stream.close()
    assert len(os.listdir("/proc/self/fd")) == before


# -------------------------------------------------------------------------------- resampling

rates = some.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 384_000])
rates |= some.integers(*decode.RATES)
quick = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def resampled(folder: Path, wave: np.ndarray, rate: int, block_seconds: float = 30.0) -> np.ndarray:
    soundfile.write(folder / "a.wav", wave, rate, subtype="FLOAT")
    return np.concatenate(list(audio.stream(folder / "a.wav", block_seconds=block_seconds)))


@quick
@given(rate=rates, seconds=some.floats(0.11, 1.0))
def test_length_is_that_of_the_ratio(tmp_path, rate, seconds):
    wave = noise(seconds, rate)
    assert abs(len(resampled(tmp_path, wave, rate)) - len(wave) * 16_000 / rate) <= 1


@quick
@given(rate=rates, block_seconds=some.floats(0.001, 0.5), values=some.integers(100, 1 << 16))
def test_block_boundaries_do_not_show(tmp_path, rate, block_seconds, values):
    wave = noise(0.3, rate)
    expected = soxr.resample(wave, rate, 16_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "_VALUES", values)
        cut = resampled(tmp_path, wave, rate, block_seconds)
    np.testing.assert_allclose(cut, expected, atol=1e-6)


@quick
@given(rate=rates, share=some.floats(0.05, 0.85))
def test_a_tone_keeps_its_pitch_and_strength(tmp_path, rate, share):
    hertz = share * min(rate, 16_000) / 2
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    heard = resampled(tmp_path, tone.astype(np.float32), rate)[4_000:12_000]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(8_000)))
    assert abs(spectrum.argmax() * 2 - hertz) <= 2  # bins of 2 Hz
    assert np.sqrt(2 * np.mean(heard**2)) == pytest.approx(0.5, rel=0.01)


@quick
@given(rate=rates)
def test_silence_stays_silence(tmp_path, rate):
    assert not resampled(tmp_path, np.zeros(rate // 4, dtype=np.float32), rate).any()

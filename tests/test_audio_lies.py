"""Headers that lie, names that mislead, lists that name other files, and what is no file at all."""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile

import numpy as np
import pytest
import soundfile
from test_audio_hostile import ends_well, judged, voice
from test_audio_stream import encode


def riff(rate=16_000, channels=1, bits=16, size=None, samples=16_000, form=1) -> bytes:
    """A WAV whose header says what it is told to, over a quiet second."""
    data = np.resize(voice(1.0) * 3e4, samples).astype("<i2").tobytes()
    size = len(data) if size is None else size
    frame = channels * bits // 8
    head = struct.pack(
        "<HHIIHH", form, channels, rate, rate * frame & 0xFFFF_FFFF, frame & 0xFFFF, bits
    )
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(size + 36, 0xFFFF_FFFF)) + chunks


def floats(*values: float) -> bytes:
    """A float WAV of a second of the voice, some of whose samples are others."""
    wave = voice(1.0)
    wave[8_000 : 8_000 + len(values)] = values
    data = io.BytesIO()
    soundfile.write(data, wave, 16_000, format="WAV", subtype="FLOAT")
    return data.getvalue()


def flac(declared: int) -> bytes:
    """A FLAC of a second that says it has so many samples (36 bits of STREAMINFO)."""
    data = io.BytesIO()
    soundfile.write(data, voice(1.0), 16_000, format="FLAC")
    told = bytearray(data.getvalue())
    told[21] = told[21] & 0xF0 | declared >> 32
    told[22:26] = (declared & 0xFFFF_FFFF).to_bytes(4, "big")
    return bytes(told)


def caf(declared: int) -> bytes:
    """A CAF whose data chunk says it has so many bytes."""
    data = io.BytesIO()
    soundfile.write(data, voice(1.0), 16_000, format="CAF", subtype="PCM_16")
    told = bytearray(data.getvalue())
    at = told.index(b"data") + 4
    told[at : at + 8] = declared.to_bytes(8, "big")
    return bytes(told)


def ogg(granule: int) -> bytes:
    """An Ogg whose last page says that so many samples have passed (its checksum is mended)."""
    data = io.BytesIO()
    soundfile.write(data, voice(1.0), 16_000, format="OGG", subtype="VORBIS")
    told = bytearray(data.getvalue())
    at = told.rindex(b"OggS")
    told[at + 6 : at + 14] = granule.to_bytes(8, "little")
    told[at + 22 : at + 26] = bytes(4)
    remainder = 0  # RFC 3533: CRC-32 of polynomial 0x04c11db7, neither reflected nor inverted
    for byte in told[at:]:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x04C1_1DB7 if remainder >> 31 else 0)) & 0xFFFF_FFFF
    told[at + 22 : at + 26] = remainder.to_bytes(4, "little")
    return bytes(told)


def zipped() -> bytes:
    """A zip archive with a WAV in it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("inside.wav", riff())
    return data.getvalue()


SECOND = 1.0  # what a file that is well in spite of all lasts
LIES: dict[str, tuple[bytes, float | str]] = {
    # name: its bytes, and the seconds that it gives or the reason that it must
    "empty.wav": (b"", "is empty"),
    "byte.wav": (b"R", "not audio"),
    "header.wav": (riff(samples=0), "only 0.000 s"),
    "sample.wav": (riff(samples=1), "only 0.000 s"),
    "text.wav": (b"some words\n" * 99, "no audio stream|not audio"),
    "page.mp3": (b"<!DOCTYPE html>" * 50, "not audio"),
    "archive.wav": (zipped(), "not audio|only|packets do not decode"),
    "zeros.wav": (bytes(5_000), "not audio|only"),
    "ones.mp3": (b"\xff" * 5_000, "not audio|only|damaged"),
    "nan.wav": (floats(np.nan), "not numbers"),
    "inf.wav": (floats(np.inf, -np.inf), "not numbers"),
    "overflow.wav": (floats(3e38, -3e38), "not numbers"),
    "denormal.wav": (floats(*[1e-42] * 4_000), SECOND),
    "clipped.wav": (floats(*[1e6] * 4_000), SECOND),
    "constant.wav": (floats(*[0.5] * 8_000), SECOND),
    "long.wav": (riff(size=0x7FFF_0000), "truncated: 1.00 of"),
    "piped.wav": (riff(size=0xFFFF_FFFF), SECOND),
    "long.flac": (flac(2**36 - 1), "truncated|damaged"),
    "long.caf": (caf(10**9 * 32_000), SECOND),
    "longest.caf": (caf(2**63 - 1), "not audio"),
    "long.ogg": (ogg(10**7 * 16_000), "truncated: 1.00 of"),
    "longer.ogg": (ogg(10**9 * 16_000), SECOND),
    "longest.ogg": (ogg(2**63 - 2), SECOND),
    "many.wav": (riff(channels=65_535), "not audio|damaged|unknown codec"),
    "1024.wav": (riff(channels=1024), "only"),
    "32.wav": (riff(channels=32, samples=16_000 * 32), SECOND),
    "none.wav": (riff(channels=0), "not audio|damaged|unknown codec"),
    "bits.wav": (riff(bits=0), "not audio|damaged|unknown codec|only"),
    "codec.wav": (riff(form=0x4242), "not audio|damaged|unknown codec"),
    **{
        f"{rate}.wav": (riff(rate, samples=rate), SECOND)
        for rate in (2_000, 8_000, 11_025, 22_050, 44_100, 96_000, 192_000, 384_000, 768_000)
    },
    **{
        f"{rate}.wav": (riff(rate), "speech needs 2000 to 768000 Hz|not audio")
        for rate in (0, 1, 10, 1_000, 1_999, 1_000_000, 2**31, 2**32 - 1)
    },
    # These name other files: a stranger's list must not have the reader's own files heard.
    "list.m3u8": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nmine.ts\n#EXT-X-ENDLIST\n",
        "not audio",
    ),
    "address.m3u8": (b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n", "not audio"),
    "list.m3u": (b"#EXTM3U\nmine.wav\n", "not audio|no audio stream"),
    "list.ffconcat": (b"ffconcat version 1.0\nfile mine.wav\n", "not audio"),
    "concat.wav": (b"ffconcat version 1.0\nfile mine.wav\n", "not audio"),
    "list.pls": (b"[playlist]\nFile1=mine.wav\nNumberOfEntries=1\n", "not audio|no audio stream"),
    "call.sdp": (b"v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n", "not audio"),
    "dash.mpd": (
        b'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        b'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="audio/mp4">'
        b'<Representation id="1"><BaseURL>mine.m4a</BaseURL></Representation></AdaptationSet>'
        b"</Period></MPD>",
        "not audio",
    ),
    # Names that a decoder might take for more than a name.
    "a%03d.wav": (riff(), SECOND),
    "-i.wav": (riff(), SECOND),
    "concat:mine.wav|mine.wav": (riff(), SECOND),
    "mine.raw": (riff(), SECOND),
    os.fsdecode(b"\xff\xfe.wav"): (riff(), SECOND),
    os.fsdecode(b"\xff\xfe.aac"): (b"\xff\xf1garbage" * 99, "not audio|damaged|only|sampled"),
    "मेरी आवाज़ 🎙.wav": (riff(), SECOND),
}


@pytest.fixture
def lies(tmp_path):
    """Return a folder with all `LIES`, what they name, and things that are no files."""
    for name, (data, _) in LIES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "mine.wav").write_bytes(riff())
    encode(tmp_path / "mine.ts", "aac", 16_000, "mono", voice())
    encode(tmp_path / "mine.m4a", "aac", 16_000, "mono", voice())
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    (tmp_path / "dangling.wav").symlink_to("nowhere.wav")
    (tmp_path / "device.wav").symlink_to("/dev/zero")
    (tmp_path / "folder.wav").mkdir()
    return tmp_path


NO_FILES = {
    "pipe.wav": "is a pipe or a device",
    "circle.wav": "no such file",
    "dangling.wav": "no such file",
    "device.wav": "is a pipe or a device",
    "folder.wav": "is a folder",
    "x" * 300 + ".wav": "no such file",
    "null\0.wav": "no such file",
}


def test_lies_are_seen_through(lies):
    outcomes = judged([lies / name for name in LIES])
    for path, outcome in outcomes.items():
        ends_well(path, outcome)
        expected = LIES[path.name][1]
        if isinstance(expected, str):
            assert re.search(expected, outcome.get("refused", "")), (path, outcome)
        else:
            assert "refused" not in outcome
            assert outcome["samples"] == pytest.approx(expected * 16_000, abs=10)


def test_what_is_no_file_is_named(lies):
    for path, outcome in judged([lies / name for name in NO_FILES]).items():
        ends_well(path, outcome)
        assert NO_FILES[path.name] in outcome["refused"]

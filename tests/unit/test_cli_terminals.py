"""Colour, width and hostile text."""

from __future__ import annotations

import io

import pytest

from orchestrator.cli.terminals import Line, Mood, Screen, visible, wants_color


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "no_color", "stream", "expected"),
    [
        ({}, False, Terminal(), True),
        ({}, False, io.StringIO(), False),
        ({}, True, Terminal(), False),
        ({"NO_COLOR": "1"}, False, Terminal(), False),
        ({"NO_COLOR": ""}, False, Terminal(), True),
        ({"TERM": "dumb"}, False, Terminal(), False),
        ({"FORCE_COLOR": "1"}, False, io.StringIO(), True),
        ({"FORCE_COLOR": "0"}, False, io.StringIO(), False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, Terminal(), False),
        ({"FORCE_COLOR": "1"}, True, Terminal(), False),
    ],
)
def test_colour_goes_where_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], no_color: bool, stream: io.StringIO, expected: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert wants_color(stream, no_color=no_color) is expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("acme", "acme"),
        ("Müller & Söhne 東京", "Müller & Söhne 東京"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\tc\rd\x00", r"a\nb\tc\rd\x00"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("half\udc80", r"half\udc80"),
    ],
)
def test_text_cannot_drive_the_terminal(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_moods_colour_whole_lines_only_where_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")

    Screen().data([Line("bad\x1b", Mood.BAD), Line("plain")])
    Screen(no_color=True).data([Line("bad", Mood.BAD)])

    assert capsys.readouterr().out == "\x1b[31mbad\\x1b\x1b[0m\nplain\nbad\n"


def test_a_stream_that_cannot_write_a_letter_gets_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(buffer, encoding="ascii", write_through=True))

    Screen().data([Line("Müller")])

    assert buffer.getvalue() == b"M\\xfcller\n"


def test_whoever_hears_no_messages_any_more_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    Screen().complain("a notification was not delivered")
    monkeypatch.setattr("sys.stdout", Gone())
    with pytest.raises(BrokenPipeError):
        Screen().raw("{}")


def test_silence_keeps_complaints(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet=True)

    screen.say("a message")
    screen.complain("an error")

    assert capsys.readouterr().err == "an error\n"

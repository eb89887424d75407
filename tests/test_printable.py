"""Text from outside is printable, and stays readable in every script."""

import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrbench.errors import AdrbenchError
from adrbench.printable import get_logger, is_printable, printable
from logs import logged

any_text = st.text(st.characters(codec=None, exclude_categories=()))
JOINERS = "\u200c\u200d"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("one\ntwo\r\tthree\u2028four\x85", r"one\ntwo\r\tthree\u2028four\x85"),
        ("\u202egnp.\u2066\u200b\ufeff\u00ad", r"\u202egnp.\u2066\u200b\ufeff\xad"),
        ("\U000e0041\udc80\ue000", r"\U000e0041\udc80\ue000"),
        ("pay\u200cpal", r"pay\u200cpal"),
        ("é\u200d\u200dé\u200c", r"é\u200d\u200dé\u200c"),
    ],
)
def test_what_acts_on_a_terminal_or_misleads_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("", "plain", "Ünïcödé", "漢字 かな", "हिन्दी", "עברית", "a\u00a0b", "a\u3000b", "\\x1b"),
        *("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f468\u200d\U0001f4bb"),
    ],
)
def test_text_of_any_script_stays(text: str) -> None:
    assert printable(text) == text
    assert is_printable(text)


@given(any_text)
def test_any_text_becomes_printable_once_and_for_all(text: str) -> None:
    shown = printable(text)
    assert is_printable(shown)
    assert printable(shown) == shown
    left = {unicodedata.category(c) for c in shown if c not in JOINERS}
    assert not left & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    shown.encode()


@given(any_text)
def test_an_error_is_one_line_whatever_it_quotes(text: str) -> None:
    assert is_printable(str(AdrbenchError(f"cannot read {text}: copy it again.")))


def test_a_log_record_is_one_line_whatever_it_quotes() -> None:
    logger = get_logger("adrbench.anything")
    with logged() as messages:
        logger.warning("took %s from\n%s", "a\x1b[2J", "\u202eb")
        logging.getLogger("adrbench.anything").info("100 %")
    assert messages == [r"took a\x1b[2J from\n\u202eb", "100 %"]

"""What the headers of an answer say of the limit: usable values, and the count of those that are not."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.wire.rate_headers import MAX_LIMIT, MAX_WAIT_S, RateHeaders, read_rate_headers

NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
ABSURD = [
    "",
    " ",
    "x",
    "1.5",
    "1e3",
    "NaN",
    "Infinity",
    "0x10",
    "1_000",
    "٣",
    "--1",
    "1 2",
    "9" * 16,
    "9" * 5_000,
    "None",
]


def read(**headers: str) -> RateHeaders:
    """Header names with `_` for `-`, in any case; a `Date` unless told otherwise."""
    named = {
        name.replace("_", "-"): value
        for name, value in {"Date": format_datetime(NOW, usegmt=True), **headers}.items()
    }
    return read_rate_headers(CIMultiDict((name, value) for name, value in named.items() if value))


def test_the_published_example_is_read():
    headers = CIMultiDict(
        {
            "X-RateLimit-Limit": "100",
            "X-RateLimit-Remaining": "95",
            "X-RateLimit-Reset": "1699999999",
            "Date": "Tue, 14 Nov 2023 22:13:18 GMT",
        }
    )
    assert read_rate_headers(headers) == RateHeaders(100, 95, 1_699_999_999, 1.0, None, 0)


def test_no_headers_say_nothing():
    assert read_rate_headers({}) == RateHeaders()


def test_names_are_read_in_any_case():
    assert read(x_ratelimit_limit="7").limit == 7


@pytest.mark.parametrize(
    ("text", "limit", "malformed"),
    [
        ("1", 1, 0),
        (" 100 ", 100, 0),
        (str(MAX_LIMIT), MAX_LIMIT, 0),
        ("0", None, 1),
        ("-1", None, 1),
        (str(MAX_LIMIT + 1), None, 1),
    ],
)
def test_a_limit_is_a_count_within_reason(text, limit, malformed):
    assert read(X_RateLimit_Limit=text) == RateHeaders(limit=limit, malformed=malformed)


@pytest.mark.parametrize(
    ("text", "remaining", "malformed"),
    [("0", 0, 0), ("95", 95, 0), ("-1", None, 1), (str(MAX_LIMIT + 1), None, 1)],
)
def test_a_remainder_is_a_count_within_reason(text, remaining, malformed):
    assert read(X_RateLimit_Remaining=text) == RateHeaders(remaining=remaining, malformed=malformed)


@pytest.mark.parametrize(
    ("ahead_s", "reset_in_s", "malformed"),
    [
        (0, 0.0, 0),
        (1, 1.0, 0),
        (-5, 0.0, 0),
        (299, 299.0, 0),
        (3_600, MAX_WAIT_S, 0),
        (90_000, None, 1),
        (-90_000, None, 1),
    ],
)
def test_a_reset_counts_from_the_answers_own_date_and_is_cut(ahead_s, reset_in_s, malformed):
    reset_at = NOW_S + ahead_s
    assert read(X_RateLimit_Reset=str(reset_at)) == RateHeaders(
        reset_at=None if malformed else reset_at, reset_in_s=reset_in_s, malformed=malformed
    )


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Nov 2023 22:13:18 GMT"])
def test_without_a_date_a_reset_says_nothing(date):
    assert read(Date=date, X_RateLimit_Reset=str(NOW_S + 1)) == RateHeaders()


@pytest.mark.parametrize(
    "reset_at", [0, -NOW_S, NOW_S * 1000, int(datetime(2099, 1, 1, tzinfo=UTC).timestamp())]
)
def test_a_reset_that_is_no_moment_near_the_date_is_a_mistake(reset_at):
    assert read(X_RateLimit_Reset=str(reset_at)) == RateHeaders(malformed=1)


@pytest.mark.parametrize(("limit", "remaining", "malformed"), [(100, 100, 0), (100, 101, 1), (1, 100, 1)])
def test_more_left_than_the_limit_is_a_mistake(limit, remaining, malformed):
    assert read(X_RateLimit_Limit=str(limit), X_RateLimit_Remaining=str(remaining)) == RateHeaders(
        limit=limit, remaining=None if malformed else remaining, malformed=malformed
    )


@pytest.mark.parametrize(
    "name", ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"]
)
def test_a_header_that_came_with_three_values_is_a_mistake(name):
    dated = ("Date", format_datetime(NOW, usegmt=True))
    values = (NOW_S, NOW_S + 1, NOW_S + 2) if name == "X-RateLimit-Reset" else (1, 2, 3)
    headers = CIMultiDict([dated, *((name, str(value)) for value in values)])
    assert (
        read_rate_headers(headers) == read_rate_headers(CIMultiDictProxy(headers)) == RateHeaders(malformed=1)
    )


def test_a_header_that_came_twice_the_same_is_one():
    headers = CIMultiDict([("X-RateLimit-Limit", "7"), ("X-RateLimit-Limit", "7")])
    assert read_rate_headers(headers) == RateHeaders(limit=7)


@pytest.mark.parametrize(
    ("text", "wait_s", "malformed"),
    [
        ("0", 0.0, 0),
        ("5", 5.0, 0),
        ("301", MAX_WAIT_S, 0),
        ("-1", None, 1),
        (format_datetime(NOW + timedelta(seconds=7), usegmt=True), 7.0, 0),
        ("Wed, 01 Jul 2026 12:00:07 -0000", 7.0, 0),
        (format_datetime(NOW - timedelta(seconds=7), usegmt=True), None, 1),
        (format_datetime(NOW + timedelta(days=400), usegmt=True), MAX_WAIT_S, 0),
        ("Wed, 01 Jul 9999 12:00:07 GMT", MAX_WAIT_S, 0),
        ("soon", None, 1),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, wait_s, malformed):
    assert read(Retry_After=text) == RateHeaders(retry_after_s=wait_s, malformed=malformed)


def test_a_date_to_retry_after_says_nothing_without_the_answers_own():
    assert read(Date="", Retry_After=format_datetime(NOW, usegmt=True)) == RateHeaders(malformed=1)


@pytest.mark.parametrize("text", [text for text in ABSURD if text])
@pytest.mark.parametrize(
    "name", ["X_RateLimit_Limit", "X_RateLimit_Remaining", "X_RateLimit_Reset", "Retry_After"]
)
def test_what_is_no_number_is_ignored_and_counted(name, text):
    assert read(**{name: text}) == RateHeaders(malformed=1)


def test_a_header_that_is_empty_is_ignored_and_counted():
    assert read_rate_headers({"X-RateLimit-Limit": "", "Retry-After": ""}) == RateHeaders(malformed=2)


_anything = (
    st.text(st.characters(exclude_categories=[]), max_size=40) | st.integers().map(str) | st.floats().map(str)
)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("Date", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"),
            _anything,
        ),
    )
)
def test_no_header_makes_a_wait_beyond_its_bound(headers):
    read = read_rate_headers(headers)
    assert read.limit is None or 1 <= read.limit <= MAX_LIMIT
    assert read.remaining is None or 0 <= read.remaining <= (read.limit or MAX_LIMIT)
    assert (read.reset_at is None) == (read.reset_in_s is None)
    for wait_s in (read.reset_in_s, read.retry_after_s):
        assert wait_s is None or 0 <= wait_s <= MAX_WAIT_S

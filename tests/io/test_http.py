"""The limits that the documentation names are those of the code; addresses that are not asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignrec_recbole.io.http import AddressRefused, Limits, checked_url, is_private

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_documented_limits_hold() -> None:
    limits, text = Limits(), " ".join(DOCS.read_text("utf-8").split())
    assert (
        f"{limits.connect:g} s to connect, {limits.silence:g} s without a byte, "
        f"{limits.answer:g} s for the headers, {limits.block:g} s per 16 KiB, "
        f"{limits.total / 3600:g} hours and {limits.size >> 30} GiB per file"
    ) in text
    assert limits.tries == 3
    assert f"ask to wait {limits.pause:g} s at most" in text


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "::1", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "240.0.0.1"],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    assert is_private(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "140.82.121.3", "2606:4700::1111", "::ffff:8.8.8.8"]
)
def test_public_addresses(address: str) -> None:
    assert not is_private(address)


@pytest.mark.parametrize(
    "url",
    ["", "a", "//h/a", "ftp://h/a", "file:///a", "data:,a", "http://", "http:///a", "http://u@h/",
     "http://h:0x/", "http://h:99999/", "http://[::1", "http://a..b/", "http://a b/", "http://h/\\a",
     "http://h%2f/", "http://" + "a" * 64 + ".x/", "http://h/\n", "http://h/\x7f", "javascript:1"],
)  # fmt: skip
def test_addresses_that_are_not_asked(url: str) -> None:
    with pytest.raises(AddressRefused, match="http or https"):
        checked_url(url)


def test_addresses_relative_to_the_page() -> None:
    assert checked_url("../b?c#d", base="https://h/x/a") == "https://h/b?c#d"
    with pytest.raises(AddressRefused, match="host g is not among"):
        checked_url("//g/", base="https://h/", permitted="h".__eq__)

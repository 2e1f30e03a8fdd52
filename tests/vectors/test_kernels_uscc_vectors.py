"""Published codes of well-known institutions, as they print them on licences, invoices and web sites."""

from __future__ import annotations

import polars as pl
import pytest

from fedcredit.kernels.uscc import check_character, normalise

PUBLISHED = {
    "example of GB 32100-2015, corrected": "91350100M000100Y43",
    "Industrial and Commercial Bank of China": "91100000100003962T",
    "China Construction Bank": "911100001000044477",
    "Bank of China": "911000001000013428",
    "Agricultural Bank of China": "911100001000054748",
    "PetroChina": "91110000710925462X",
    "Huawei Technologies": "914403001922038216",
    "Tencent (Shenzhen)": "9144030071526726XG",
    "Baidu (Beijing)": "91110000802100433B",
    "Alibaba (China)": "91330100799655058B",
}

# The standard's worked example is a code whose check character is wrong: 3 is right, Z is no character of a code.
REFUSED = ["91350100M000100Y4Z", "91350100M000100Y44", "91110000600037342L", "A1110000600037341L", "91110000600037341"]


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_codes_have_the_check_character_that_is_computed(name: str) -> None:
    code = PUBLISHED[name]
    assert check_character(code[:17]) == code[17]


def test_published_codes_are_canonical() -> None:
    codes = pl.Series("uscc", list(PUBLISHED.values()))
    assert normalise(codes).to_list() == codes.to_list()


@pytest.mark.parametrize("code", REFUSED)
def test_wrong_codes_are_null(code: str) -> None:
    assert normalise(pl.Series("uscc", [code])).to_list() == [None]

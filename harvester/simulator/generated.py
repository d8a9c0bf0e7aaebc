r"""Made-up datasets: a row is a cheap function of seed, dataset and position, so no table is kept.

The values look like the platforms': names in upper case and masked persons on Wuhan's side; application numbers in
several spellings, applicants as one text or a list, decimals with trailing zeros, integers beyond 64 bits and
escapes (``\/``, ``\"``, ``\u00b2``) on SIPOP's. Persons, companies and patents are invented.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from operator import mul
from typing import Final, NamedTuple

from harvester.simulator.tables import SimulatedTable

MAX_ROWS: Final = 50_000_000
"""Up to here registration and application numbers do not repeat."""

CACHED_PAGES: Final = 1024

_SPREAD: Final = 61_803_399  # coprime to powers of ten: serial numbers look shuffled, yet do not repeat

_FIRST: Final = 4181  # so that the first row does not carry the number zero

_DISTRICTS: Final = (
    ("420102", "江岸区"),
    ("420103", "江汉区"),
    ("420104", "硚口区"),
    ("420105", "汉阳区"),
    ("420106", "武昌区"),
    ("420107", "青山区"),
    ("420111", "洪山区"),
    ("420112", "东西湖区"),
    ("420113", "汉南区"),
    ("420114", "蔡甸区"),
    ("420115", "江夏区"),
    ("420116", "黄陂区"),
    ("420117", "新洲区"),
)
_SURNAMES: Final = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
_WORDS: Final = "广角 宏达 楚天 东湖 长江 华中 金桥 天元 博远 新纪 中南 晨光 三江 明德 恒信 汉口".split()  # noqa: SIM905 - reads better
_TRADES: Final = "自控技术 生物科技 建筑工程 商贸 物流 软件 环保设备 餐饮管理".split()  # noqa: SIM905 - as above
_STATUSES: Final = ("存续", "存续", "存续", "吊销", "注销")
_OBJECTS: Final = "牙刷 水泵 轴承 电池组 滤芯 光纤接头 焊接夹具 温度传感器".split()  # noqa: SIM905 - as above
_TRAITS: Final = (
    "一种新型",
    "可调节",
    r"面积为12m\u00b2的",
    r"带\"自锁\"结构的",
    "低功耗",
    r"用于A\/B相的",
    "高效",
    "便携式",
)
_IPC: Final = (
    "A46B 9/04",
    "F04D 29/22",
    "F16C 33/66",
    "H01M 10/42",
    "B01D 46/24",
    "G02B 6/38",
    "B23K 37/04",
    "G01K 7/16",
)
_EVENTS: Final = ("公布", "实质审查的生效", "授权", "专利权的终止", "专利申请权的转移")
_VARIANTS: Final = 1021  # prime, so that they do not fall in step with a page size


class Kind(NamedTuple):
    """What one generated dataset holds.

    A row is text that repeats every ``_VARIANTS`` subjects, with numbers in it that do not. Kinds of the same
    ``family`` speak of the same subjects, companies or patents, and have ``each`` rows for every one.
    """

    title: str
    family: str
    each: int
    columns: tuple[str, ...]
    text: Callable[[int, int], str]
    """Random bits of the subject and the row's place among its rows, to a text with %-conversions."""
    numbers: Callable[[int, int], tuple[int | bytes, ...]]
    """Position of the subject and the row's place among its rows, to the values of the conversions."""
    identifiers: tuple[str, ...]
    """The columns that tell its rows apart."""


class GeneratedTable(SimulatedTable):
    """A table that computes its rows; the pages that were asked for last are kept."""

    def __init__(self, kind: Kind, rows: int, seed: int) -> None:
        super().__init__(kind.columns, kind.title, kind.identifiers)
        self._rows = rows
        self._each = kind.each
        self._numbers = kind.numbers
        self._texts = [
            kind.text(_bits(seed, kind.family, subject), place).encode()
            for subject in range(_VARIANTS)
            for place in range(kind.each)
        ]
        self._page = lru_cache(CACHED_PAGES)(self._encode)

    def __len__(self) -> int:
        return self._rows

    def page_bytes(self, first: int, count: int) -> bytes:
        """Return up to ``count`` rows from position ``first``, joined by commas."""
        return self._page(first, min(first + count, self._rows))

    def row_bytes(self, index: int) -> bytes:
        """Return one row; raises IndexError if there is none."""
        if not 0 <= index < self._rows:
            raise IndexError(f"row {index} of {self._rows}")
        return self._encode(index, index + 1)  # past the cache, which a search would sweep

    def row_beyond(self, index: int) -> bytes:
        """Return the row that a longer table has at the position."""
        return self._encode(index, index + 1)

    def _encode(self, first: int, last: int) -> bytes:
        texts, numbers, each = self._texts, self._numbers, self._each
        return b",".join([texts[index % len(texts)] % numbers(*divmod(index, each)) for index in range(first, last)])


def _bits(seed: int, family: str, subject: int) -> int:
    return int.from_bytes(blake2b(f"{seed} {family} {subject}".encode(), digest_size=8).digest())


def _company_name(bits: int) -> str:
    return f"武汉{_WORDS[bits >> 8 & 15]}{_WORDS[bits >> 12 & 15]}{_TRADES[bits >> 16 & 7]}有限公司"


def _company_ids(bits: int) -> str:
    """Return the registration number (15 digits) and the unified social credit code (18 characters) of a company."""
    code, _ = _DISTRICTS[bits % 13]
    return f'"REGNO":"{code}%08d{bits % 10}","UNISCID":"91{code}MA%07X{bits >> 19 & 7}"'


def _company_serials(index: int, _place: int) -> tuple[int, int]:
    serial = (index + _FIRST) * _SPREAD % 100_000_000
    return serial, serial


def _company(bits: int, _place: int) -> str:
    revoked = "null" if bits & 7 else f'"20{16 + (bits >> 22 & 7)}-0{1 + (bits >> 25 & 7)}-11"'
    return (
        f'{{"ENTNAME":"{_company_name(bits)}",{_company_ids(bits)},"LEREP":"{_SURNAMES[bits % 40]}****",'
        f'"REGCAP":"{(bits >> 28) % 500_000 / 100:.2f}",'
        f'"ESTDATE":"20{bits >> 33 & 15:02d}-0{1 + (bits >> 37 & 7)}-2{bits >> 40 & 7}",'
        f'"DOM":"武汉市{_DISTRICTS[bits % 13][1]}解放大道{1 + (bits >> 43 & 1023)}号A\\/{bits >> 53 & 15}座",'
        f'"ENTSTATUS":"{_STATUSES[bits % 5]}","REVDATE":{revoked}}}'
    )


def _investor(bits: int, place: int) -> str:
    surname = _SURNAMES[(bits + 13 * place) % 40]  # no two of one company have the same masked name
    ids = _company_ids(bits).replace('","', f'","ENTNAME":"{_company_name(bits)}","')
    return f'{{"INV":"{surname}****",{ids}}}'


def _application(index: int) -> tuple[int, int, int, bytes]:
    """Return what an application number is made of: year, kind, serial number and check digit."""
    block, number = divmod(index, 10_000_000)
    year, kind, serial = 2024 - 5 * (index & 3) - block, 1 + index % 3, (number + _FIRST) * _SPREAD % 10_000_000
    weighed = _WEIGHED[year] + 6 * kind + _WEIGHED_HIGH[serial // 1000] + _WEIGHED_LOW[serial % 1000]
    return year, kind, serial, _CHECK[weighed % 11]


def _weigh(number: int, weights: tuple[int, ...]) -> int:
    return sum(map(mul, map(int, f"{number:0{len(weights)}d}"), weights))


# The check digit weighs the twelve digits with 2 to 9 and 2 to 5 (Chinese standard ZC 0006).
_WEIGHED: Final = {year: _weigh(year, (2, 3, 4, 5)) for year in range(2000, 2025)}
_WEIGHED_HIGH: Final = [_weigh(digits, (7, 8, 9, 2)) for digits in range(10_000)]
_CHECK: Final = (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"X")
_WEIGHED_LOW: Final = [_weigh(digits, (3, 4, 5)) for digits in range(1000)]


def _patent_numbers(index: int, _place: int) -> tuple[int | bytes, ...]:
    year, kind, serial, check = _application(index)
    return year, kind, serial, check, serial, year


def _patent(bits: int, _place: int) -> str:
    first = f'"武汉{_WORDS[bits >> 8 & 15]}{_TRADES[bits >> 16 & 7]}有限公司"'
    applicant = first if bits & 12 else f'[{first},"{_WORDS[bits >> 12 & 15]}大学"]'
    family = 18_446_744_073_709_551_616 + bits if bits % 8 == 0 else bits >> 24
    return (
        f'{{"appNumber":"CN%d%d%07d.%b","pubNumber":"CN10%07dA",'
        f'"title":"{_TRAITS[bits >> 43 & 7]}{_OBJECTS[bits >> 46 & 7]}","applicant":{applicant},'
        f'"inventor":"{_SURNAMES[bits % 40]}**","ipc":"{_IPC[bits >> 46 & 7]}",'
        f'"appDate":"%d-0{1 + (bits >> 37 & 7)}-2{bits >> 40 & 7}","citations":{bits >> 50 & 31},'
        f'"score":{(bits >> 28) % 1000 / 100:.2f},"familyId":{family}}}'
    )


def _legal_numbers(index: int, place: int) -> tuple[int | bytes, ...]:
    year, kind, serial, check = _application(index)
    return year, kind, serial, check, year + 1 + place


def _legal_event(bits: int, place: int) -> str:
    number = "%d%d%07d.%b" if bits & 64 else "CN%d%d%07d%b"
    return (
        f'{{"appNumber":"{number}","legalDate":"%d-0{1 + (bits >> 30 & 7)}-1{bits >> 33 & 7}",'
        f'"legalStatus":"{_EVENTS[(bits + place) % 5]}","legalInfo":null}}'
    )


DATASETS: Final = {
    "wuhan": {
        "companies": Kind(
            "企业公示_企业基本信息",
            "company",
            1,
            ("ENTNAME", "REGNO", "UNISCID", "LEREP", "REGCAP", "ESTDATE", "DOM", "ENTSTATUS", "REVDATE"),
            _company,
            _company_serials,
            ("REGNO", "UNISCID"),
        ),
        "investors": Kind(
            "企业公示_出资人信息",
            "company",
            3,
            ("INV", "REGNO", "ENTNAME", "UNISCID"),
            _investor,
            _company_serials,
            ("INV", "REGNO", "UNISCID"),
        ),
    },
    "sipop": {
        "patent.search": Kind(
            "专利检索",
            "patent",
            1,
            (
                "appNumber",
                "pubNumber",
                "title",
                "applicant",
                "inventor",
                "ipc",
                "appDate",
                "citations",
                "score",
                "familyId",
            ),
            _patent,
            _patent_numbers,
            ("appNumber", "pubNumber"),
        ),
        "patent.legal": Kind(
            "专利法律状态",
            "patent",
            2,
            ("appNumber", "legalDate", "legalStatus", "legalInfo"),
            _legal_event,
            _legal_numbers,
            ("appNumber", "legalDate"),
        ),
    },
}
"""The generated datasets: platform, then the interface's or method's name."""

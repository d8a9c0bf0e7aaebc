"""Answers as platforms send them, and what becomes of such bytes on a bad day; the same for the same seed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Final

ROWS: Final = (
    r'{"REGNO":"420104000223773","ENTNAME":"武汉广角自控技术有限公司","INV":"李****","SUBCONAM":1.10,"N":12345678901234567890}',
    r'{"a":"\ud83d\ude00","b":"\ud83d","c":"\/\"\\\u00b2","d":[1e400,-0,0.10,[]],"a":"twice","":null,"e":{"f":{}}}',
    r'{"text":"é€武","x":true,"y":[null,false,{"data":[1]}],"big":-98765432109876543210.50,"sp":"a b\tc\n"}',
    "null",
    '"a row that is a text"',
    "[1,2]",
)
TOKENS: Final = (
    *(b'"', b"\\", b"[", b"]", b"{", b"}", b",", b":", b"null", b"true", b"NaN", b"Infinity", b"-Infinity", b"-", b"0"),
    *(b"\x00", b"\x01", b"\t", b"\n", b" ", b"\x7f", b"\xff", b"\xa6\\", b"\xc0\x80", b"\xed\xa0\xbd", b"\xef\xbb\xbf"),
    *(
        b"\\ud83d",
        b"\\udc00",
        b"\\u0000",
        b"\\u00",
        b"\\x41",
        b"\\\t",
        b"'",
        b"//",
        b"/*",
        b"1e999",
        b"01",
        b"0x1F",
        b"1.",
    ),
    *(
        "武".encode(),
        "武".encode("gb18030"),
        "\u2028".encode(),
        b"\x84\x31\x95\x33",
        b'"data":',
        b'"errcode":0,',
        b'"code":1000,',
    ),
    *(
        b'"data":[],',
        b'"data":null',
        b'{"data":[{}]}',
        b'"result":true,',
        b'"total":5,',
        b'"pageNo":"7",',
        b"<html>",
        b"[[[[",
    ),
    *(b'"\\u0064ata":[],', b'"errcode":"0",', b'"code":"1100",'),
)
HUGE: Final = (
    "9" * 400,
    "1e99999",
    "-0",
    "00",
    "0x10",
    "1" * 20,
    "NaN",
    "1.0000000000000000000000000001",
    "-1",
    "1e-400",
    "+1",
)


def good_bodies(platform: str) -> list[bytes]:
    """Return good answers in all the forms that a platform is known to use."""
    rows = "[" + ",".join(ROWS[:3]) + "]"
    many = "[" + ",".join(ROWS * 3) + "]"
    datas = [
        rows, many, "[]", "null", '[{"only":1}]', ROWS[1],
        f'{{"pageNo":3,"pageSize":20,"data":{rows},"metadata":{{}},"total":"41"}}',
        f'{{"pageNum":"3","pageSize":"20","data":{ROWS[0]}}}', '{"pageNo":9,"data":null}', '{"pageNo":9}',
    ]  # fmt: skip
    datas += [json.dumps(rows), json.dumps(datas[6]), f'{{"data":{json.dumps(rows, ensure_ascii=False)},"pageNo":1}}']
    if platform == "wuhan":
        texts = [f'{{"errcode":0,"errmsg":"","data":{data},"hint":null}}' for data in datas]
        texts += [f'{{"data":{rows},"errcode":"0"}}', '{"errcode":1433,"errmsg":"请求签名错误","data":[]}']
    else:
        texts = [f'{{"result":true,"code":"1000","msg":"","total":"41","count":2,"data":{data}}}' for data in datas]
        texts += [f'{{"data":{rows},"code":1000,"result":"true"}}', '{"result":false,"code":"1004","msg":"签名错误"}']
        texts += ['{"result":true,"code":"1100","msg":"没有数据","data":[{"a":1}]}']
    bodies = [text.encode() for text in texts]
    bodies += [text.encode("gb18030") for text in texts[:3]] + [b"\xef\xbb\xbf" + bodies[0]]
    bodies += [json.dumps(texts[0]).encode(), json.dumps(texts[6], ensure_ascii=False).encode()]
    bodies += [bodies[0].replace(b",", b" ,\r\n\t").replace(b":", b" : "), b" \n" + bodies[6] + b"\n\n"]
    return bodies


def _flip(dice: Random, body: bytes) -> bytes:
    at = dice.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << dice.randrange(8)]) + body[at + 1 :]


def _overwrite(dice: Random, body: bytes) -> bytes:
    at = dice.randrange(len(body))
    return body[:at] + dice.choice(TOKENS) + body[at + 1 :]


def _insert(dice: Random, body: bytes) -> bytes:
    at = dice.randrange(len(body) + 1)
    return body[:at] + dice.choice(TOKENS) + body[at:]


def _insert_at_a_mark(dice: Random, body: bytes) -> bytes:
    marks = [found.end() for found in re.finditer(rb'[\[{,:"\\]', body)]
    at = dice.choice(marks or [0])
    return body[:at] + dice.choice(TOKENS) + body[at:]


def _cut(dice: Random, body: bytes) -> bytes:
    at = dice.randrange(len(body))
    return body[:at] if dice.random() < 0.7 else body[at:]


def _remove(dice: Random, body: bytes) -> bytes:
    start = dice.randrange(len(body))
    return body[:start] + body[start + dice.randrange(1, 30) :]


def _double(dice: Random, body: bytes) -> bytes:
    start = dice.randrange(len(body))
    part = body[start : start + dice.randrange(1, 200)]
    at = dice.randrange(len(body))
    return body[:at] + part + body[at:]


def _encode(dice: Random, body: bytes) -> bytes:
    text = body.decode(errors="surrogateescape")
    charset = dice.choice(["gb18030", "gbk", "utf-16", "utf-16-le", "latin-1", "utf-8-sig", "utf-7", "big5"])
    return text.encode(charset, errors="replace")


def _encode_a_part(dice: Random, body: bytes) -> bytes:
    at = dice.randrange(len(body))
    return body[:at] + _encode(dice, body[at:])


def _nest(dice: Random, body: bytes) -> bytes:
    depth = dice.choice([1, 2, 60, 600, 3_000])
    opening, closing = dice.choice([(b"[", b"]"), (b'{"data":', b"}"), (b'{"a":[', b"]}")])
    start = dice.choice([found.end() for found in re.finditer(rb"[:\[,]", body)] or [0])
    end = dice.choice(
        [found.start() for found in re.finditer(rb"[,\]}]", body) if found.start() >= start] or [len(body)]
    )
    return body[:start] + opening * depth + body[start:end] + closing * (depth - dice.choice([0, 0, 1])) + body[end:]


def _enlarge(dice: Random, body: bytes) -> bytes:
    numbers = list(re.finditer(rb"-?[0-9.]+", body))
    if not numbers:
        return body
    found = dice.choice(numbers)
    return body[: found.start()] + dice.choice(HUGE).encode() + body[found.end() :]


def _pack(dice: Random, body: bytes) -> bytes:
    text = body.decode(errors="replace")
    return json.dumps(text, ensure_ascii=dice.random() < 0.5).encode()


def _print(dice: Random, body: bytes) -> bytes:
    space = dice.choice([b" ", b"\n  ", b"\t", b"\r\n", b"\x0b", b"\xc2\xa0"])
    return dice.choice([b",", b":", b"[", b"{", b"}"]).join(
        part + (space if dice.random() < 0.5 else b"")
        for part in body.split(dice.choice([b",", b":", b"[", b"{", b"}"]))
    )


MUTATIONS: Final[tuple[Callable[[Random, bytes], bytes], ...]] = (
    _flip, _flip, _overwrite, _insert, _insert_at_a_mark, _insert_at_a_mark, _cut, _remove, _double, _encode,
    _encode_a_part, _nest, _enlarge, _enlarge, _pack, _print,
)  # fmt: skip


def mutated(dice: Random, bodies: list[bytes]) -> bytes:
    """Return a good body that one to four things have happened to; sometimes the end of it is another's."""
    body = dice.choice(bodies)
    if dice.random() < 0.1:
        other = dice.choice(bodies)
        body = body[: dice.randrange(len(body))] + other[dice.randrange(len(other)) :]
    for _ in range(dice.choice([1, 1, 1, 2, 3, 4])):
        body = dice.choice(MUTATIONS)(dice, body or b"{")
    return body

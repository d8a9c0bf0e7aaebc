"""Values that pass between the parts: frozen, without behaviour that waits, reads a clock or opens a file."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from hashlib import sha256
from typing import Any, Final, Literal, NoReturn, Protocol

from msgspec import Struct
from msgspec.structs import force_setattr

MASK: Final = "********"

_PIECE: Final = 2047  # bytes that are hashed without letting go of the interpreter
_USUAL: Final = 2**15  # bytes of a page; a larger one is worth it

About = Literal["", "permission", "address", "parameters"]
"""What a refusal is about, where one can tell."""


class Secret:
    """Text that must not leave the process: every rendering of it is a mask, and it cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself; only a platform's ``sign`` has a reason to ask."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


class App(Struct, frozen=True, kw_only=True):
    """One registered application on one platform: who signs, and how often it may call.

    ``rate_limit`` is in calls per second; ``None`` means unlimited, which a job file may say for loopback only.
    ``rate_share`` is the part of it that this machine may use, ``headroom`` the part of that which is used at most.
    ``id_headers`` matters to Wuhan, ``digest`` to SIPOP. The rest says how calls get to ``url``: past which ``proxy``
    (its address without user and password, or "env" for the environment's) with which user and password, whom to
    believe beside the system's authorities (``ca_file``, an absolute path), whether as little as TLS 1.0 will do, and
    which ``host`` to ask for where ``url`` is that of a gateway in front of it.
    """

    name: str
    platform: str
    url: str
    id: str
    secret: Secret
    rate_limit: float | None
    rate_share: float = 1.0
    headroom: float = 0.975
    id_headers: tuple[str, ...] = ()
    digest: str = ""
    proxy: str = ""
    proxy_auth: tuple[str, Secret] | None = None
    ca_file: str = ""
    legacy_tls: bool = False
    host: str = ""


class Dataset(Struct, frozen=True, kw_only=True):
    """One dataset of a job: what to ask for, and under which name it is kept.

    ``service`` or ``url`` addresses a Wuhan interface, ``method`` a SIPOP operation. ``page_param`` and
    ``first_page`` are already filled with the platform's own where the job file is silent. ``charset`` is that of the
    answers, empty until it is known. ``key`` names the columns that tell rows apart; ``recheck`` is the number of pages
    to read a second time, None for as many as a proof needs. ``max_calls`` is the platform's allowance until
    ``calls_reset``: "day", "month" or a date, in Beijing time.
    """

    name: str
    app: App
    title: str = ""
    service: str = ""
    url: str = ""
    method: str = ""
    body: str = ""
    envelope: Mapping[str, Any] = {}
    params: Mapping[str, Any] = {}
    page_size: int | None = None
    paging: Literal["page", "none"] = "page"
    page_param: str = ""
    first_page: int = 1
    charset: str = ""
    key: tuple[str, ...] = ()
    recheck: int | None = None
    expect_rows: int | None = None
    strict: bool = False
    max_calls: int | None = None
    calls_reset: str = "month"


class Request(Struct, frozen=True, gc=False):
    """A call that is not signed yet; only its platform knows what becomes of ``body`` and ``fields``."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    fields: Mapping[str, str] = {}


class Signed(Struct, frozen=True, gc=False):
    """The exact bytes and headers of one attempt. Never sent twice, and never shown: they hold a signature."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Signed({self.url!r}, {MASK})"


class Reply(Struct, frozen=True, gc=False):
    """What came back: any status, the headers (case-insensitive mapping), the whole decoded body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def page_digest(lines: bytes | memoryview) -> bytes:
    """Return the 16 bytes that stand for a page's lines.

    ``hashlib`` lets other threads run while it works on 2 KiB and more. For a page of usual size it takes longer to
    get the interpreter back than to hash it, so that one is handed over in smaller pieces.
    """
    if len(lines) > _USUAL:
        return sha256(lines).digest()[:16]
    digest = sha256()
    for at in range(0, len(lines), _PIECE):
        digest.update(lines[at : at + _PIECE])
    return digest.digest()[:16]


class Page(Struct, frozen=True, gc=False):
    r"""The rows of one accepted answer, as sent.

    ``lines`` holds ``rows`` JSON texts, each ended by ``\n``. ``number`` and ``size`` are what the answer echoes,
    ``total`` the count of all matches, each ``None`` where the answer is silent. ``repairs`` names what had to be
    changed to get at the rows (see ``envelope``). ``single`` says that one object came where a list is usual.
    ``charset`` is the one that this answer gives evidence for; empty where every byte is ASCII, which fits all.
    ``digest`` is made of the lines, once.
    """

    lines: bytes
    rows: int
    number: int | None = None
    size: int | None = None
    total: int | None = None
    repairs: tuple[str, ...] = ()
    single: bool = False
    charset: str = ""
    digest: bytes = b""

    def __post_init__(self) -> None:
        force_setattr(self, "digest", page_digest(self.lines))


class Kind(Enum):
    """What an answer without rows asks of us."""

    OVER_LIMIT = "over limit"
    AGAIN = "again"
    CLOCK = "clock"
    REFUSED = "refused"


class Verdict(Struct, frozen=True, kw_only=True):
    """An answer that holds no page: what it asks of us, in the platform's words and in ours.

    ``code`` and ``text`` are the platform's own, ``meaning`` and ``hint`` ours. ``concerns`` says what a refusal
    stops and ``about`` sorts it for ``check``. ``tries`` bounds how often the page is asked for, ``then`` says what
    follows when they are used up. ``retry_after`` is that header as sent; ``quarantine`` asks to keep the bytes of a
    body that nobody could read.
    """

    kind: Kind
    code: str
    text: str
    meaning: str
    hint: str = ""
    concerns: Literal["app", "dataset"] = "dataset"
    tries: int | None = None
    then: Literal["open", "refused"] = "open"
    about: About = ""
    retry_after: str = ""
    quarantine: bool = False


class CodeRule(Struct, frozen=True, kw_only=True):
    """One row of a platform's code table: its class, our explanation and what to do about it."""

    kind: Kind
    meaning: str
    hint: str = ""
    concerns: Literal["app", "dataset"] = "dataset"
    about: About = ""
    tries: int | None = None

    def verdict(self, code: str, text: str) -> Verdict:
        """Apply the row to an answer that carries ``code`` and the platform's message ``text``."""
        return Verdict(
            kind=self.kind,
            code=code,
            text=text,
            meaning=self.meaning,
            hint=self.hint,
            concerns=self.concerns,
            about=self.about,
            tries=self.tries,
        )


class Platform(Protocol):
    """What the engine needs of a platform. A module under ``platforms/`` is one."""

    @property
    def NAME(self) -> str:  # noqa: N802 - constants of a module
        """The word after ``platform =`` in a job file."""

    @property
    def DEFAULT_URL(self) -> str:  # noqa: N802
        """Where calls go when the job file does not say."""

    @property
    def CREDENTIAL_KEYS(self) -> tuple[str, str]:  # noqa: N802
        """Names in the job file of the app's id and of its secret."""

    @property
    def APP_KEYS(self) -> frozenset[str]:  # noqa: N802
        """Keys of ``[apps.NAME]`` that only this platform knows."""

    @property
    def DATASET_KEYS(self) -> frozenset[str]:  # noqa: N802
        """Keys of ``[datasets.NAME]`` that only this platform knows."""

    @property
    def PAGE_PARAM(self) -> str:  # noqa: N802
        """The parameter that carries the page number unless a dataset says otherwise."""

    @property
    def CODES(self) -> Mapping[str, CodeRule]:  # noqa: N802
        """The documented codes other than success."""

    def complaint(self, dataset: Dataset) -> tuple[str, str] | None:
        """Say what is wrong with the settings and how to mend it, or None."""

    def target(self, dataset: Dataset) -> str:
        """Return the full address of the dataset's calls, for identity and for people."""

    def operation(self, dataset: Dataset) -> str:
        """Return the name under which the platform counts the dataset's calls: the method or service."""

    def build(self, dataset: Dataset, page: int) -> Request:
        """Make the unsigned call for a page, counted in the platform's own numbers."""

    def sign(self, request: Request, app: App, now: float, nonce: str) -> Signed:
        """Sign for the server's time ``now`` (Unix seconds) with a nonce that was never used before."""

    def read(self, dataset: Dataset, reply: Reply) -> Page | Verdict:
        """Tell a page from everything else. Never raises on any bytes."""

"""Who is measured: with which packages, at which settings, by whose advice, and where the rows lie afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import calls

HERE = Path(__file__).parent
BARE = HERE.parent / "bare.py"
OWN = "harvester"
PACKAGES = {
    "aiohttp": ("aiohttp", "uvloop", "orjson"),
    "httpx": ("httpx", "uvloop", "orjson"),
    "rnet": ("rnet", "uvloop", "orjson"),
    "scrapy": ("scrapy", "uvloop"),
    "dlt": ("dlt",),
    "singer": ("singer-sdk[msgspec]",),
}
"""What is installed into the virtual environment of each peer; the first is the one whose version is printed."""


@dataclass(frozen=True, kw_only=True)
class Errand:
    """Have so many pages of ``url`` in ``folder``; ``venvs`` holds environments; ``resumable``: ready for a kill."""

    url: str
    pages: int
    folder: Path
    venvs: Path
    resumable: bool


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way of doing the job; it gets one ``part``-th of the pages, and keeps its rows in files or not at all."""

    name: str
    peer: str
    setting: str
    advice: str
    command: Callable[[Errand], list[str]]
    files: Callable[[Path], Iterable[Path]] | None
    part: int = 1
    told_pages: bool = False


def _bare(errand: Errand) -> list[str]:
    return [sys.executable, str(BARE), "--url", errand.url, "--pages", str(errand.pages)]


def _harvester(errand: Errand, *more: str) -> list[str]:
    job, token = errand.folder / "job.toml", errand.folder / "token"
    token.touch(0o600)
    token.write_text(calls.TOKEN)
    url, _, service = errand.url.rpartition("/")
    lines = [
        "[apps.gateway]",
        'platform = "wuhan"',
        f'passid = "{calls.PASSID}"',
        'token = { file = "token" }',
        f'url = "{url}/"',
        'rate_limit = "none"',
        f"[datasets.{service}]",
        f'service = "{service}"',
        *more,
    ]
    job.write_text("\n".join(lines) + "\n")
    return [sys.executable, "-m", "harvester", "run", str(job), "--quiet", "--json"]


def _harvester_wide(errand: Errand) -> list[str]:
    return _harvester(errand, "[run]", "concurrency = 64")


def _script(peer: str, *more: str) -> Callable[[Errand], list[str]]:
    def command(errand: Errand) -> list[str]:
        script = [str(interpreter(errand.venvs, peer)), str(HERE / f"{peer}_peer.py")]
        return [
            *script,
            "--url",
            errand.url,
            "--folder",
            str(errand.folder),
            *more,
            *(["--resumable"] if errand.resumable and more else []),
        ]

    return command


def _lines(folder: Path) -> Iterable[Path]:
    return folder.glob("rows.jsonl")


def _loaded(folder: Path) -> Iterable[Path]:
    return folder.glob("loaded/mirror/companies/*.jsonl*")


def _mirror(folder: Path) -> Iterable[Path]:
    snapshots = [path for path in folder.glob("mirror/*/*") if path.is_dir() and not path.is_symlink()]
    return (part for path in snapshots for part in path.glob("part-*"))


def _pair(peer: str, advice: str, part: int = 1, files: Callable[[Path], Iterable[Path]] = _lines) -> list[Contender]:
    return [
        Contender(name=peer, peer=peer, setting="default", advice="", command=_script(peer), files=files, part=part),
        Contender(
            name=peer,
            peer=peer,
            setting="best",
            advice=advice,
            command=_script(peer, "--best"),
            files=files,
            part=part,
        ),
    ]


CONTENDERS = [
    Contender(name=OWN, peer="", setting="default", advice="", command=_harvester, files=_mirror),
    Contender(
        name=OWN,
        peer="",
        setting="best",
        advice="README.md: concurrency = 64",
        command=_harvester_wide,
        files=_mirror,
    ),
    Contender(
        name="bare aiohttp",
        peer="",
        setting="best",
        advice="the fastest variant of bare.py",
        command=_bare,
        files=None,
        told_pages=True,
    ),
    *_pair("aiohttp", "docs.aiohttp.org, client_reference.html: connector limit, DummyCookieJar; its README: uvloop"),
    *_pair("rnet", "the parameters of rnet.Client in rnet's own rnet.pyi, which its README names as documentation"),
    *_pair("httpx", "www.python-httpx.org/advanced/resource-limits/: few connections", part=20),
    *_pair("scrapy", "docs.scrapy.org, topics/broad-crawls, asyncio (uvloop) and jobs (JOBDIR)", part=20),
    *_pair("dlt", "dlthub.com/docs/reference/performance: callables in a pool, buffers, no compression", 20, _loaded),
    *_pair("singer", "sdk.meltano.com/en/latest/guides/performance.html: MsgSpecWriter", part=20),
]


def interpreter(venvs: Path, peer: str) -> Path:
    """Return the Python of a peer's environment, whether or not it is there."""
    return venvs / peer / "bin" / "python"


def install(venvs: Path, peer: str) -> None:
    """Make a peer's environment with the packages it needs, by pip; complains as pip does."""
    if not interpreter(venvs, peer).exists():
        subprocess.run([sys.executable, "-m", "venv", str(venvs / peer)], check=True)
    pip = [str(interpreter(venvs, peer)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *PACKAGES[peer]], check=True)


def versions(venvs: Path, peer: str) -> dict[str, str] | None:
    """Return the versions of a peer's packages in its environment; None if it cannot be used."""
    names = [package.partition("[")[0] for package in PACKAGES[peer]]
    script = "import sys, importlib.metadata as m; print(*(m.version(name) for name in sys.argv[1:]))"
    try:
        shown = subprocess.run(
            [str(interpreter(venvs, peer)), "-c", script, *names], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return dict(zip(names, shown.stdout.split(), strict=True)) if shown.returncode == 0 else None

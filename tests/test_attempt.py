"""Attempts with a scripted wire and a clock that is set: what is signed when, and what follows from answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from hashlib import sha256
from time import process_time
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from conftest import VirtualTime
from msgspec.structs import replace
from multidict import CIMultiDict

from harvester import attempt, health
from harvester.attempt import Again, Caller, Failures, Keep, Leave, Refuse, Subject
from harvester.errors import HarvesterError, UsageError
from harvester.frontier import Frontier
from harvester.health import Health
from harvester.model import App, Dataset, Kind, Reply, Secret, Signed
from harvester.pace import Pacer
from harvester.platforms import wuhan
from harvester.schedule import Budget, Schedule
from harvester.send import Sender, SendError

NOW = 1_800_000_000.0
APP = App(name="w", platform="wuhan", url="http://127.0.0.1/", id="id", secret=Secret("token"), rate_limit=None)

GOOD = b'{"errcode":0,"data":{"data":[{"ID":"1"}]}}'
SIGNATURE = '{"errcode":"1433","errmsg":"请求签名错误"}'.encode()
DATABASE = b'{"errcode":"100106","errmsg":"exec sql false"}'
OVER = '{"errcode":1141,"errmsg":"请求频率过高"}'.encode()


class Time:
    """The counter of seconds since boot, which only a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


class Wire:
    """Takes calls instead of a sender, and plays answers."""

    def __init__(self, *answers: Reply | SendError) -> None:
        self.answers = list(answers)
        self.calls: list[Signed] = []

    async def send(self, signed: Signed) -> Reply:
        """Play the next answer; the last one for ever."""
        self.calls.append(signed)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, SendError):
            raise answer
        return answer


class Permits:
    """Stands in for a pacer: permits at once, and keeps what it is told."""

    def __init__(self, time: Time) -> None:
        self.now = time
        self.answers: list[bool] = []
        self.refusals: list[tuple[float, str, float]] = []

    async def permit(self) -> float:
        """Give leave now."""
        return self.now()

    def answered(self, _: float, *, accepted: bool) -> None:
        """Note an answer."""
        self.answers.append(accepted)

    def refused(self, permitted: float, retry_after: str, wall: float) -> float:
        """Note a refusal for the rate; the first one begins a pause."""
        self.refusals.append((permitted, retry_after, wall))
        return 1.05 if len(self.refusals) == 1 else 0.0


class Bench:
    """A caller with everything around it."""

    def __init__(self, time: Time, *answers: Reply | SendError, attempts: int = 8, first_page: int = 1) -> None:
        self.time = time
        self.wire = Wire(*answers)
        self.pacer = Permits(time)
        self.caller = Caller(APP, wuhan, cast(Pacer, self.pacer), cast(Sender, self.wire), attempts)
        dataset = Dataset(name="d", app=APP, service="d", page_param="pageNo", first_page=first_page)
        self.health = Health(time(), 900)
        self.subject = Subject(dataset, self.health)

    async def ask(self, page: int = 1) -> attempt.Decision:
        """Make one attempt at a page, a second after what was before."""
        self.time.now += 1
        return await self.caller.attempt(self.subject, page, await self.pacer.permit())

    def stamps(self) -> list[int]:
        """Return the times that were signed."""
        return [int(call.headers["x-tif-timestamp"]) for call in self.wire.calls]


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Set the counter, the wall clock and the jitter of back-offs."""
    moved = Time()
    monkeypatch.setattr(attempt, "counter", moved)
    monkeypatch.setattr(attempt, "time", SimpleNamespace(time=lambda: NOW))
    monkeypatch.setattr(attempt, "backoff", lambda failures, _: float(failures))
    return moved


def reply(body: bytes, status: int = 200, **headers: str) -> Reply:
    """Return an answer."""
    return Reply(status, CIMultiDict(headers), body)


def html(status: int = 200) -> Reply:
    """Return a web page where data was expected."""
    return reply("<html><title>访问被拦截</title></html>".encode(), status)


def verdict_of(decision: attempt.Decision) -> Any:  # noqa: ANN401 - the verdict, whatever kind of decision holds it
    """Return the verdict of a decision that has one."""
    assert not isinstance(decision, Keep)
    return decision.verdict


async def test_a_late_permit_does_not_age_the_signature(time: Time) -> None:
    """The time that is signed is read when the call goes out, not when its turn came."""
    bench = Bench(time, reply(GOOD))
    permitted = await bench.pacer.permit()
    time.now += 500  # between the permit and the call; a signature lives 180 s
    assert isinstance(await bench.caller.attempt(bench.subject, 1, permitted), Keep)
    assert bench.stamps() == [int(NOW) + 500]


async def test_what_is_signed_is_what_is_sent(time: Time) -> None:
    """The signature on the wire is that of the timestamp and nonce beside it, and the page is in the body."""
    bench = Bench(time, reply(GOOD), first_page=0)
    await bench.ask(7)
    (call,) = bench.wire.calls
    stamp, nonce = call.headers["x-tif-timestamp"], call.headers["x-tif-nonce"]
    assert call.headers["x-tif-signature"] == sha256(f"{stamp}token{nonce}{stamp}".encode()).hexdigest().upper()
    assert call.body == b'{"query":{"pageNo":"6"}}'  # page 7 of an interface that counts from 0
    assert call.url == "http://127.0.0.1/d"


async def test_every_attempt_is_a_new_call(time: Time) -> None:
    """Attempts at one page differ in nonce and signature and carry the time of their own sending."""
    bench = Bench(time, reply(DATABASE), SendError("the connection broke"), html(), reply(GOOD))
    for _ in range(4):
        await bench.ask()
    assert len({call.headers["x-tif-nonce"] for call in bench.wire.calls}) == 4
    assert len({call.headers["x-tif-signature"] for call in bench.wire.calls}) == 4
    assert bench.stamps() == [int(NOW) + second for second in (1, 2, 3, 4)]


async def test_a_wrong_clock_is_put_right_once(time: Time) -> None:
    """The first refusal of a signature teaches the server's time; the next call is signed with it."""
    date = formatdate(NOW + 3_600, usegmt=True)
    bench = Bench(time, reply(SIGNATURE, Date=date), reply(GOOD, Date=date))
    assert isinstance(await bench.ask(), Again)
    assert isinstance(await bench.ask(), Keep)
    assert bench.stamps()[1] - bench.stamps()[0] == pytest.approx(3_600, abs=2)
    assert bench.health.down is False
    assert bench.subject.failures == {}


async def test_a_second_refusal_of_the_signature_is_believed(time: Time) -> None:
    """After the correction 1433 is about credentials: refused, for the whole app, with the offset in words."""
    bench = Bench(time, reply(SIGNATURE, Date=formatdate(NOW + 3_600, usegmt=True)))
    await bench.ask()
    decision = await bench.ask()
    assert isinstance(decision, Refuse)
    assert decision.verdict.code == "1433"
    assert decision.verdict.concerns == "app"
    assert "the clocks differ by +3600 s, which has been allowed for" in decision.verdict.meaning
    assert len(bench.wire.calls) == 2


async def test_no_date_no_correction(time: Time) -> None:
    """Without a Date there is nothing to learn, and the message says so."""
    bench = Bench(time, reply(SIGNATURE))
    await bench.ask()
    assert "the answer has no Date" in verdict_of(await bench.ask()).meaning
    assert bench.stamps() == [int(NOW) + 1, int(NOW) + 2]


async def test_calls_that_left_before_the_correction_prove_nothing(time: Time) -> None:
    """Refusals of calls that were under way when the clock was put right are tried again, not believed."""
    bench = Bench(time, reply(SIGNATURE, Date=formatdate(NOW, usegmt=True)))
    early = await bench.pacer.permit()
    await bench.ask()
    for _ in range(3):
        assert isinstance(await bench.caller.attempt(bench.subject, 2, early), Again)
    assert isinstance(await bench.ask(), Refuse)


async def test_a_clock_can_be_put_right_again_later(time: Time) -> None:
    """Once a call has succeeded after a correction, a later refusal is a new one: the platform's clock was set."""
    later = formatdate(NOW + 7_200, usegmt=True)
    bench = Bench(time, reply(SIGNATURE), reply(GOOD), reply(SIGNATURE, Date=later), reply(GOOD, Date=later))
    kinds = [type(await bench.ask()) for _ in range(4)]
    assert kinds == [Again, Keep, Again, Keep]


async def test_failures_count_only_while_the_host_serves(time: Time) -> None:
    """Within 10 s of a good answer a failure is the page's; later it is the platform's and costs no attempt."""
    bench = Bench(time, reply(GOOD), reply(DATABASE), attempts=2)
    await bench.ask(1)
    assert await bench.ask(2) == Again(verdict_of(await bench.ask(3)), after=1.0)
    assert bench.subject.failures == {2: Failures(1, 1_002.0), 3: Failures(1, 1_003.0)}
    time.now += health.RECENT
    for _ in range(20):
        decision = await bench.ask(2)
        assert isinstance(decision, Again)
        assert decision.after == 0.0
    assert bench.health.down
    assert {page: failures.count for page, failures in bench.subject.failures.items()} == {2: 1, 3: 1}


@pytest.mark.parametrize(
    ("answer", "attempts", "expected"),
    [(reply(DATABASE), 8, 3), (reply(DATABASE), 2, 2), (html(502), 8, 8), (SendError("the connection broke"), 4, 4)],
    ids=["three tries", "fewer attempts than tries", "bad gateway", "no answer"],
)
async def test_a_page_is_left_open_after_its_attempts(
    time: Time, answer: Reply | SendError, attempts: int, expected: int
) -> None:
    """Failures that count use up the page's attempts, with longer and longer pauses; then it stays open."""
    bench = Bench(time, reply(GOOD), answer, attempts=attempts)
    await bench.ask(1)
    pauses = []
    while isinstance(decision := await bench.ask(2), Again):
        assert not bench.health.down
        pauses.append(decision.after)
        time.now += 100  # the calls may be far apart
        bench.health.succeeded(time.now)  # other pages go on being served
    assert isinstance(decision, Leave)
    assert decision.body == b""
    assert pauses == [float(number) for number in range(1, expected)]


async def test_the_platforms_words_count_without_a_success_in_between(time: Time) -> None:
    """A documented failure of one page is believed while the host is alive; nothing has to be probed for it."""
    bench = Bench(time, reply(GOOD), reply(DATABASE))
    await bench.ask(1)
    assert [type(await bench.ask(2)) for _ in range(3)] == [Again, Again, Leave]
    assert not bench.health.down


@pytest.mark.parametrize("answer", [html(502), SendError("the connection broke")], ids=["bad gateway", "no answer"])
async def test_without_the_platforms_words_a_second_failure_needs_a_success(
    time: Time, answer: Reply | SendError
) -> None:
    """Nothing served since the page last failed: the host is turned down at once, and the page not charged."""
    bench = Bench(time, reply(GOOD), answer, attempts=3)
    await bench.ask(1)
    for count in (1, 2):
        assert cast(Again, await bench.ask(2)).after == float(count)
        assert not bench.health.down
        for _ in range(5):
            assert cast(Again, await bench.ask(2)).after == 0.0
            assert bench.health.rest(time.now) == health.PROBE_INTERVAL
        assert bench.subject.failures[2].count == count
        bench.health.succeeded(time.now)  # a probe is answered
    assert isinstance(await bench.ask(2), Leave)


async def test_a_host_that_never_answered_charges_no_page(time: Time) -> None:
    """Without a good answer there is nothing to blame a page with, not even for the platform's own words."""
    for answer in (reply(DATABASE), html(502), SendError("the connection broke")):
        bench = Bench(time, answer)
        assert await bench.ask() == Again(verdict_of(await bench.ask()))
        assert bench.health.down
        assert bench.subject.failures == {}


async def test_a_success_wipes_the_slate(time: Time) -> None:
    """A page that came has no failures any more."""
    bench = Bench(time, reply(GOOD), reply(DATABASE), reply(GOOD))
    for page in (1, 2):
        await bench.ask(page)
    assert bench.subject.failures == {2: Failures(1, 1_002.0)}
    await bench.ask(2)
    assert bench.subject.failures == {}


@pytest.mark.parametrize("status", [200, 401, 403])
async def test_web_pages_are_a_refusal_in_the_end(time: Time, status: int) -> None:
    """A login or protection page is tried four times, also when nothing else was ever answered; then it is believed."""
    bench = Bench(time, html(status))
    decisions = [await bench.ask() for _ in range(4)]
    assert [type(decision) for decision in decisions] == [Again, Again, Again, Refuse]
    assert verdict_of(decisions[-1]).text == "访问被拦截"
    assert verdict_of(decisions[-1]).concerns == "app"
    assert not bench.health.down


async def test_a_body_nobody_can_read_is_kept(time: Time) -> None:
    """After four tries the page stays open, also when nothing else was ever answered; its bytes are handed back."""
    bench = Bench(time, reply(b'{"errcode":0,"data":[{'))
    decisions = [await bench.ask(2) for _ in range(4)]
    assert not bench.health.down
    assert [type(decision) for decision in decisions] == [Again, Again, Again, Leave]
    assert cast(Leave, decisions[-1]).body == b'{"errcode":0,"data":[{'


async def test_over_the_limit_costs_no_attempt(time: Time) -> None:
    """A refusal for the rate counts against nothing; the pacer is told, and its pause is passed on."""
    bench = Bench(time, reply(GOOD), reply(OVER), attempts=1)
    await bench.ask(1)
    first, second = [await bench.ask(2) for _ in range(2)]
    assert isinstance(first, Again)
    assert (first.verdict.kind, first.paused) == (Kind.OVER_LIMIT, 1.05)
    assert cast(Again, second).paused == 0.0
    assert bench.pacer.refusals == [(1_002.0, "", NOW + 2), (1_003.0, "", NOW + 3)]
    assert bench.pacer.answers == [True]
    assert bench.subject.failures == {}
    assert not bench.health.down


async def test_the_pacer_reads_retry_after_by_the_servers_clock(time: Time) -> None:
    """The header comes to the pacer as it was sent, with the platform's time to read a date against."""
    date = formatdate(NOW + 3_600, usegmt=True)
    bench = Bench(time, reply(GOOD, Date=date), reply(b"slow down", 429, **{"Retry-After": "7"}))
    await bench.ask()
    await bench.ask()
    ((_, retry_after, wall),) = bench.pacer.refusals
    assert retry_after == "7"
    assert wall == pytest.approx(NOW + 3_600, abs=2)


@pytest.mark.parametrize(
    "answer",
    [reply(DATABASE), reply(SIGNATURE), html(), SendError("the connection broke"), reply(b'{"errcode":"8888"}')],
    ids=["database", "signature", "web page", "no answer", "unknown"],
)
async def test_the_pacer_hears_of_every_call(time: Time, answer: Reply | SendError) -> None:
    """Whatever comes back, the pacer learns once that the call is over, and whether it was served."""
    bench = Bench(time, answer)
    await bench.ask()
    assert bench.pacer.answers == [False]
    assert bench.pacer.refusals == []


@pytest.mark.parametrize(("final", "kind"), [(False, Again), (True, Refuse)])
async def test_calls_without_an_answer(time: Time, final: bool, kind: type[attempt.Decision]) -> None:  # noqa: FBT001 - a parameter of the table
    """No answer is tried again, unless trying again is pointless; the text is the sender's."""
    bench = Bench(time, SendError("the connection broke", final=final))
    decision = await bench.ask()
    assert isinstance(decision, kind)
    assert verdict_of(decision).meaning == "the connection broke"
    assert verdict_of(decision).concerns == "app"


async def test_an_unknown_code_is_a_refusal(time: Time) -> None:
    """A code nobody documented is believed at once: it may not be taken for anything else."""
    bench = Bench(time, reply(b'{"errcode":"8888","errmsg":"?"}'))
    assert isinstance(await bench.ask(), Refuse)


# -- our own side ----------------------------------------------------------------------------------------------------

PROXY_DOWN = SendError("the proxy http://proxy cannot be reached", ours=True)
NO_SOCKETS = SendError("this machine cannot open another connection", local=True)
LOGIN = '<html><title>认证</title><form><input name=p type="password"></form></html>'.encode()


@pytest.mark.parametrize("error", [PROXY_DOWN, NO_SOCKETS], ids=["proxy", "descriptors"])
async def test_our_own_side_costs_no_attempt(time: Time, error: SendError) -> None:
    """However often it fails while others come through, no page is left open, and the decision says whose fault."""
    bench = Bench(time, reply(GOOD), error, attempts=2)
    await bench.ask(1)
    for _ in range(20):
        decision = await bench.ask(2)
        assert isinstance(decision, Again)
        assert (decision.ours, decision.local) == (True, error.local)
        assert decision.after == 1.0
        time.now += 1
        bench.health.succeeded(time.now)  # other pages go on being served
    assert bench.subject.failures[2].count == 0
    assert cast(Again, await bench.ask(2)).after == 1.0
    assert cast(Again, await bench.ask(2)).after == 0.0
    assert bench.health.down, "nothing came through since: single probes"
    assert bench.health.reach.lost is error.ours, "a host is not lost because we have no sockets"


async def test_a_failure_of_ours_that_will_not_pass_is_final(time: Time) -> None:
    """Such as a password that the proxy does not take: refused at once, as our own affair."""
    bench = Bench(time, SendError("the proxy http://proxy does not accept the password", ours=True, final=True))
    decision = await bench.ask()
    assert isinstance(decision, Refuse)
    assert decision.ours
    assert decision.verdict.concerns == "app"
    assert "proxy" in decision.verdict.hint


@pytest.mark.parametrize("answer", [reply(LOGIN), reply(LOGIN, 403), reply(b"", 511)], ids=["200", "403", "511"])
async def test_a_login_page_is_ours_in_the_end(time: Time, answer: Reply) -> None:
    """A page that asks for a password is no interface's: tried four times, then our own side's to mend."""
    bench = Bench(time, answer)
    decisions = [await bench.ask() for _ in range(4)]
    assert [type(decision) for decision in decisions] == [Again, Again, Again, Refuse]
    assert cast(Refuse, decisions[-1]).ours
    assert verdict_of(decisions[-1]).meaning.startswith("the login page of a network")


async def test_a_page_that_blocks_us_is_not_ours(time: Time) -> None:
    """Without a field for a password it may be the platform's own protection."""
    bench = Bench(time, html())
    assert not cast(Refuse, [await bench.ask() for _ in range(4)][-1]).ours


async def test_a_hostile_page_is_searched_in_no_time(time: Time) -> None:
    """A body of open tags takes as long as any other of its size."""
    bench = Bench(time, reply(b"<html>" + b"<input " * 200_000 + b"type" * 200_000))
    started = process_time()
    await bench.ask()
    assert process_time() - started < 2


@pytest.mark.parametrize(
    "answer",
    [
        (LOGIN, 200),
        (LOGIN, 511),
        ("<html>访问被拦截</html>".encode(), 200),
        (b"<html>bad gateway</html>", 502),
        (b"", 407),
        (b"", 302),
        (b"", 503),
        (b"not json", 200),
        (b'{"code":"1"}', 200),
    ],
)
async def test_only_the_platform_tells_the_time(time: Time, answer: tuple[bytes, int]) -> None:
    """What a proxy, a network or a gateway answers by itself may have any Date: the clock does not move."""
    wrong = formatdate(NOW - 86_400, usegmt=True)
    bench = Bench(time, reply(*answer, Date=wrong), reply(GOOD, Date=formatdate(NOW + 3_600, usegmt=True)))
    before = bench.caller.clock.offset
    await bench.ask()
    assert (bench.caller.clock.known, bench.caller.clock.offset) == (False, before)
    await bench.ask()
    assert bench.caller.clock.offset == pytest.approx(3_600, abs=3)


@pytest.mark.parametrize("answer", [reply(GOOD), reply(DATABASE), reply(OVER), html(502), reply(SIGNATURE)])
async def test_any_answer_shows_that_the_host_is_there(time: Time, answer: Reply) -> None:
    """Nobody who shares the host has to wait for it any longer, however bad the answer was."""
    bench = Bench(time, reply(GOOD), SendError("no connection"), SendError("no connection"), answer)
    other = Health(time(), 900, bench.health.reach)
    for page in (1, 2, 2):
        await bench.ask(page)
    assert other.down
    await bench.ask(1)
    assert not other.down


# -- a secret that was replaced --------------------------------------------------------------------------------------


class Vault:
    """Hands out the app with the secrets that it is told, one after another."""

    def __init__(self, *secrets: str | HarvesterError | None) -> None:
        self.secrets = list(secrets)
        self.asked = 0

    def __call__(self, app: App) -> App | None:
        """Read the secret again."""
        self.asked += 1
        secret = self.secrets.pop(0)
        if isinstance(secret, HarvesterError):
            raise secret
        return None if secret is None else replace(app, secret=Secret(secret))


def bench_with(time: Time, vault: Vault, *answers: Reply | SendError) -> Bench:
    """Return a bench whose secret can be read again."""
    bench = Bench(time, *answers)
    bench.caller._reread = vault
    return bench


def signed_with(call: Signed, token: str) -> bool:
    """Tell whether a call was signed with a token."""
    stamp, nonce = call.headers["x-tif-timestamp"], call.headers["x-tif-nonce"]
    return call.headers["x-tif-signature"] == sha256(f"{stamp}{token}{nonce}{stamp}".encode()).hexdigest().upper()


async def test_a_replaced_secret_is_read_again(time: Time) -> None:
    """After earlier success and the clock's correction; the next call is signed with the new one and goes through."""
    vault = Vault("new")
    bench = bench_with(time, vault, reply(GOOD), reply(SIGNATURE), reply(SIGNATURE), reply(GOOD))
    assert [type(await bench.ask()) for _ in range(4)] == [Keep, Again, Again, Keep]
    assert [signed_with(call, "token") for call in bench.wire.calls] == [True, True, True, False]
    assert signed_with(bench.wire.calls[-1], "new")
    assert vault.asked == 1


async def test_a_secret_that_never_worked_is_not_read_again(time: Time) -> None:
    """Then it is simply wrong."""
    vault = Vault("new")
    bench = bench_with(time, vault, reply(SIGNATURE))
    assert [type(await bench.ask()) for _ in range(2)] == [Again, Refuse]
    assert vault.asked == 0


async def test_a_secret_is_read_again_once(time: Time) -> None:
    """If it is the same, or the new one does not work either, the refusal is believed; success makes it good again."""
    same = Vault(None)
    bench = bench_with(time, same, reply(GOOD), reply(SIGNATURE))
    assert [type(await bench.ask()) for _ in range(5)] == [Keep, Again, Refuse, Refuse, Refuse]
    assert same.asked == 1
    wrong = Vault("wrong")
    bench = bench_with(time, wrong, reply(GOOD), reply(SIGNATURE))
    assert [type(await bench.ask()) for _ in range(4)] == [Keep, Again, Again, Refuse]
    assert wrong.asked == 1
    twice = Vault("second", "third")
    replaced = [reply(SIGNATURE), reply(SIGNATURE), reply(GOOD)]
    bench = bench_with(time, twice, reply(GOOD), *replaced, *replaced)
    assert [type(await bench.ask()) for _ in range(7)] == [Keep, Again, Again, Keep, Again, Again, Keep]
    assert signed_with(bench.wire.calls[-1], "third")


async def test_calls_that_left_with_the_old_secret_prove_nothing(time: Time) -> None:
    """Many are under way when it is replaced: it is read once, and none of their refusals is believed."""
    vault = Vault("new")
    bench = bench_with(time, vault, reply(GOOD), reply(SIGNATURE))
    await bench.ask()
    await bench.ask()  # the clock has been put right
    time.now += 1
    permits = [await bench.pacer.permit() for _ in range(8)]
    time.now += 1
    calls = [bench.caller.attempt(bench.subject, page, permit) for page, permit in enumerate(permits, 1)]
    assert {type(decision) for decision in await asyncio.gather(*calls)} == {Again}
    assert vault.asked == 1
    assert isinstance(await bench.ask(), Refuse), "the new one does not work"


async def test_why_a_secret_could_not_be_read_again_is_told(time: Time) -> None:
    """Beside what the platform says."""
    vault = Vault(UsageError("[apps.w] `token`: the file token cannot be read: Permission denied"))
    bench = bench_with(time, vault, reply(GOOD), reply(SIGNATURE))
    decision = [await bench.ask() for _ in range(3)][-1]
    assert isinstance(decision, Refuse)
    assert decision.verdict.meaning.endswith("the file token cannot be read: Permission denied")


async def test_a_permission_has_nothing_to_do_with_the_secret(time: Time) -> None:
    """A refusal of one dataset reads nothing again, nor does one in no words of the platform's."""
    vault = Vault("new")
    for answer in (reply(b'{"errcode":1403}'), reply(b"", 302), html()):
        bench = bench_with(time, vault, reply(GOOD), answer)
        assert isinstance([await bench.ask() for _ in range(5)][-1], Refuse)
    assert vault.asked == 0


# -- repetitions -----------------------------------------------------------------------------------------------------


async def test_repetitions_beyond_the_budget_are_put_off(time: Time) -> None:
    """They wait longer than their back-off, and no page is left open for it."""
    bench = Bench(time, reply(GOOD), reply(DATABASE), attempts=100)
    await bench.ask(1)
    time.now += 1
    waits = []
    for page in range(2, 702):
        decision = await bench.caller.attempt(bench.subject, page, time.now)
        assert isinstance(decision, Again)
        waits.append(decision.after)
    assert waits[:500] == [1.0] * 500
    assert waits[-1] > 3
    assert waits == sorted(waits)
    assert not bench.health.down


async def test_the_counter_goes_on_by_itself() -> None:
    """The real counter is in seconds and does not go back."""
    first = attempt.counter()
    assert 0 <= attempt.counter() - first < 1


# -- what becomes of pages while others are asked for, in virtual time ----------------------------------------------

Script = Callable[[int, float], tuple[Reply | SendError, float]]
"""Given page and time of sending; what it returns comes after so many seconds."""


class Crew:
    """Workers that share one dataset of ``PAGES`` pages: real schedule, frontier and judgement, a scripted platform."""

    PAGES = 60
    LATENCY = 0.05

    def __init__(self, virtual: VirtualTime, script: Script, *, workers: int, gap: float = 0.0) -> None:
        self.health = Health(0.0, 900)
        self.pages = Frontier()
        self.metered = self.finished = False
        self.left: list[int] = []
        self.calls: Counter[int] = Counter()
        self._virtual, self._script, self._workers, self._gap = virtual, script, workers, gap
        self._next_permit = 0.0
        permits = Permits(Time())
        dataset = Dataset(name="d", app=APP, service="d", page_param="pageNo")
        self._subject = Subject(dataset, self.health)
        self._caller = Caller(APP, wuhan, cast(Pacer, permits), cast(Sender, self), attempts=3)

    async def send(self, signed: Signed) -> Reply:
        """Play what the script says for the page that is asked for."""
        page = int(orjson.loads(signed.body)["query"]["pageNo"])
        self.calls[page] += 1
        answer, seconds = self._script(page, self._virtual.now())
        await asyncio.sleep(seconds)
        if isinstance(answer, SendError):
            raise answer
        return answer

    async def run(self) -> None:
        """Work until nothing is left to ask for; a month is for ever."""
        schedule = Schedule([self], Budget(), self._virtual.now)
        schedule.together()
        async with asyncio.timeout(30 * 86_400), asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work(schedule))

    async def _work(self, schedule: Schedule) -> None:
        while (turn := await schedule.take()) is not None:
            now = self._virtual.now()
            self._next_permit = max(self._next_permit, now) + self._gap
            await asyncio.sleep(self._next_permit - self._gap - now)
            match await self._caller.attempt(self._subject, turn.page, self._virtual.now()):
                case Keep(page) if not turn.probe:
                    self.pages.arrived(turn.page, page.rows, page.lines)
                case Again(_, after):
                    schedule.again(turn, after)
                case Leave():
                    self.left.append(turn.page)
                    self.pages.leave_open(turn.page)
            schedule.give_back(turn, called=True, kept=False)
            if self.pages.exhausted:
                self.finished = True
                schedule.wake()

    def good(self, page: int) -> tuple[Reply, float]:
        """Return what a platform that is well answers."""
        rows = [{"ID": str(page)}] if page <= self.PAGES else []
        return reply(orjson.dumps({"errcode": 0, "data": {"pageNo": page, "data": rows}})), self.LATENCY


def crew_of(
    virtual: VirtualTime,
    monkeypatch: pytest.MonkeyPatch,
    bad: Callable[[int, float], tuple[Reply | SendError, float] | None],
    *,
    workers: int,
    gap: float = 0.0,
) -> Crew:
    """Return a crew that has worked to the end; where ``bad`` says nothing, the platform is well."""
    monkeypatch.setattr(attempt, "counter", virtual.now)
    crew = Crew(virtual, lambda page, now: bad(page, now) or crew.good(page), workers=workers, gap=gap)
    virtual.run(crew.run)
    return crew


@pytest.mark.parametrize(
    ("seconds", "workers", "gap"),
    [(0.3, 8, 0.0), (30, 8, 0.0), (30, 1, 0.0), (60, 1, 25.0), (0.5, 2, 25.0), (300, 16, 0.01), (12, 1, 11.0)],
)
@pytest.mark.parametrize("hanging", [{7}, {7, 8, 30, 60}], ids=["one", "several"])
def test_pages_that_hang_are_left_open(
    virtual: VirtualTime, monkeypatch: pytest.MonkeyPatch, hanging: set[int], seconds: float, workers: int, gap: float
) -> None:
    """A page that always times out ends, however long the time-out or the pauses between calls, and no other does."""
    timeout = SendError("timed out")
    crew = crew_of(
        virtual, monkeypatch, lambda page, _: (timeout, seconds) if page in hanging else None, workers=workers, gap=gap
    )
    assert sorted(crew.left) == sorted(hanging)
    assert set(crew.pages.missing()) == hanging
    assert all(3 <= crew.calls[page] <= 40 for page in hanging)


@pytest.mark.parametrize("length", [4.0, 60.0, 3_600.0])
@pytest.mark.parametrize("workers", [1, 16])
@pytest.mark.parametrize(
    ("failure", "seconds"),
    [(html(502), 0.05), (SendError("refused"), 0.001), (SendError("timed out"), 30.0)],
    ids=["bad gateway", "refused", "timed out"],
)
def test_an_outage_opens_no_page(
    virtual: VirtualTime,
    monkeypatch: pytest.MonkeyPatch,
    length: float,
    workers: int,
    failure: Reply | SendError,
    seconds: float,
) -> None:
    """While everything fails, for seconds or an hour, single probes go out and no page loses its attempts."""
    began = 0.12
    crew = crew_of(
        virtual,
        monkeypatch,
        lambda _, now: (failure, seconds) if began <= now < began + length else None,
        workers=workers,
    )
    assert crew.left == []
    assert crew.pages.complete
    assert crew.pages.done == crew.PAGES
    needed = crew.PAGES + 30  # and those that look for the end
    assert crew.calls.total() <= needed + 3 * workers + length / health.PROBE_INTERVAL


@pytest.mark.parametrize("workers", [1, 16])
def test_a_page_that_fails_in_the_platforms_words_is_left_open(
    virtual: VirtualTime, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """One page whose query fails costs its three tries, and the host is not taken for down."""
    crew = crew_of(
        virtual, monkeypatch, lambda page, _: (reply(DATABASE), 0.05) if page == 7 else None, workers=workers
    )
    assert crew.left == [7]
    assert crew.calls[7] == 3
    assert crew.calls[1] == 1, "no probe"
    assert crew.pages.missing() == [7]

"""Accounts, invites, sessions, tokens and the log, in a file and on a server."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from tests_people import PASSWORD, Clock, quick_hashes

from palate.errors import BadInput
from palate.feedback import people as module
from palate.feedback.people import DAY, INVITE_SECONDS, SESSION_SECONDS, People, Person, folded, log, named, note
from palate.feedback.store import Store, open_store
from palate.feedback.tables import ACCOUNTS, AUDIT, INVITES, JUDGEMENTS, SESSIONS, TOKENS


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One test asks for the real hashes."""
    with quick_hashes():
        yield


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with open_store(store_url) as found:
        yield found


@pytest.fixture
def people(store: Store, clock: Clock) -> People:
    """With ann, who leads."""
    made = People(store, clock)
    link = made.setup_invite()
    assert link is not None
    made.join(link, "ann", PASSWORD)
    return made


def joined(people: People, name: str, *roles: str) -> Person:
    return people.join(people.invite(roles or ("evaluator",), by="ann"), name, PASSWORD)


def everything(store: Store) -> str:
    with store.reading("every table") as connection:
        tables = (ACCOUNTS, SESSIONS, INVITES, TOKENS, AUDIT)
        return "\n".join(str(row) for table in tables for row in connection.execute(sa.select(table)))


# --- names and passwords ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Ann", "ann lee", "Zoë", "李 雷", "мария", "d'Arc", "x-1_2.b", "ａｎｎ", "  Ann  Lee ", "3 cooks", "हिन्दी"]
)
def test_names_of_many_languages_can_be_had(name: str) -> None:
    assert 2 <= len(named(name)) <= 40 and named(named(name)) == named(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "a", "x" * 41, "\u00a0\u00a0", "ann\x00", "ann\n<b>", "<script>", "ann\u202egol", "an\u200bn", "an\u2060n",
        "ann\ufe0f", "ann\u3164", "\u3164\u3164", "a/b", "../x", "..", "=1+1", "-1", "@ann", "a,b", 'a"b', "a&b",
        "\u0301nn", "аnn", "αnn bee", "ann\ud800", "a\\b", "a%41", "😀😀",
    ],
)  # fmt: skip
def test_names_that_play_tricks_cannot(name: str) -> None:
    with pytest.raises(BadInput, match="name"):
        named(name)


def test_two_names_that_look_the_same_are_one(people: People) -> None:
    joined(people, "Zoë")
    for other in ("ZOË", "zoe\u0308", "Ｚｏë", " zoë "):
        with pytest.raises(BadInput, match="has this name"):
            joined(people, other)
    assert folded("Straße") == folded("STRASSE")


@pytest.mark.parametrize(
    "password",
    ["", "short", "123456789", "bobthecook", "BobTheCook", "1234567890", "Password123", "a" * 12, "ab" * 5, "x" * 1001],
)
def test_passwords_that_are_guessed_first_are_refused(people: People, password: str) -> None:
    with pytest.raises(BadInput, match="password"):
        people.join(people.invite(["author"], by="ann"), "bobthecook", password)


def test_passwords_need_nothing_but_length(people: People) -> None:
    for number, password in enumerate(("alllowercase", "ten spaces", "пароль который длинный", "x1" * 3 + "abcd")):
        name = f"person {number}"
        people.join(people.invite(["author"], by="ann"), name, password)
        assert people.login(name, password)


def test_a_password_is_the_same_from_every_keyboard(people: People) -> None:
    people.join(people.invite(["author"], by="ann"), "zoe", "caf\u00e9 au lait")
    assert people.login("zoe", "cafe\u0301 au lait")


def test_no_secret_is_stored(people: People, store: Store) -> None:
    link, session, token = (
        people.invite(["author"], by="ann"),
        people.login("ann", PASSWORD),
        people.make_token("ann", "x"),
    )
    assert session is not None
    told = everything(store)
    assert PASSWORD not in told and "$argon2id$" in told
    for secret in (link, session, token):
        assert secret not in told and len(secret) >= 43  # 256 bits in base 64


def test_the_real_hash_is_argon2id_of_64_mebibytes() -> None:
    from pwdlib import PasswordHash
    from pwdlib.hashers.argon2 import Argon2Hasher

    made = PasswordHash((Argon2Hasher(),)).hash("x")
    assert made.startswith("$argon2id$v=19$m=65536,t=3,")


# --- invites ---------------------------------------------------------------------------------------------------------


def test_the_first_lead_joins_by_a_link_of_the_terminal(store: Store, clock: Clock) -> None:
    people = People(store, clock)
    first, link = people.setup_invite(), people.setup_invite()
    assert first is not None and link is not None
    with pytest.raises(BadInput, match="link"):
        people.join(first, "ann", PASSWORD)  # the newer one took its place
    assert people.join(link, "ann", PASSWORD) == Person("ann", frozenset({"lead"}))
    assert people.setup_invite() is None


def test_an_invite_is_for_one_person_and_seven_days(people: People, clock: Clock) -> None:
    link = people.invite(["author", "evaluator"], by="ann")
    invite = people.invited(link)
    assert invite is not None and invite.roles == {"author", "evaluator"} and people.invites() == [invite]
    with pytest.raises(BadInput, match="name"):
        people.join(link, "ann", PASSWORD)  # is taken, and the link is still good
    assert people.join(link, "bob", PASSWORD).roles == {"author", "evaluator"}
    assert people.invites() == [] and people.invited(link) is None
    with pytest.raises(BadInput, match="link was used"):
        people.join(link, "eve", PASSWORD)
    late = people.invite(["author"], by="ann")
    clock.at += INVITE_SECONDS
    with pytest.raises(BadInput, match="expired"):
        people.join(late, "eve", PASSWORD)
    with pytest.raises(BadInput, match="link"):
        people.join("made up", "eve", PASSWORD)
    assert [account.name for account in people.accounts()] == ["ann", "bob"]


def test_an_invite_can_be_taken_back(people: People) -> None:
    link = people.invite(["author"], by="ann")
    (invite,) = people.invites()
    assert not people.uninvite("%", by="ann") and not people.uninvite("", by="ann") and people.invites()
    assert people.uninvite(invite.id, by="ann") and not people.uninvite(invite.id, by="ann")
    with pytest.raises(BadInput):
        people.join(link, "eve", PASSWORD)


def test_of_many_who_use_one_link_at_once_one_joins(people: People) -> None:
    link, told = people.invite(["author"], by="ann"), []

    def go(number: int) -> None:
        with contextlib.suppress(BadInput):
            told.append(people.join(link, f"person {number}", PASSWORD).name)

    threads = [threading.Thread(target=go, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1 and [a.name for a in people.accounts()] == ["ann", *told]


def test_of_many_who_take_one_name_at_once_one_has_it(people: People) -> None:
    links, told = [people.invite(["author"], by="ann") for _ in range(8)], []

    def go(link: str) -> None:
        with contextlib.suppress(BadInput):
            told.append(people.join(link, "bob", PASSWORD).name)

    threads = [threading.Thread(target=go, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["bob"] and len(people.invites()) == 7


def test_nobody_joins_under_the_name_of_somebody_who_left_records(people: People, store: Store) -> None:
    values: dict[str, Any] = {"campaign": "c", "prompt_id": "p", "simulated": False, "ranked": True, "record": {}}
    with store.writing() as connection:
        connection.execute(sa.insert(JUDGEMENTS).values(id="j", annotator="Zoë", **values))
    with pytest.raises(BadInput, match="has this name"):
        joined(people, "zoë")


def test_the_first_lead_takes_up_what_they_did_alone(store: Store, clock: Clock) -> None:
    values: dict[str, Any] = {"campaign": "c", "prompt_id": "p", "simulated": False, "ranked": True, "record": {}}
    with store.writing() as connection:
        connection.execute(sa.insert(JUDGEMENTS).values(id="j", annotator="ann", **values))
    people = People(store, clock)
    link = people.setup_invite()
    assert link is not None and people.join(link, "ann", PASSWORD).name == "ann"


@pytest.mark.parametrize("roles", [[], ["boss"], ["lead", "boss"]])
def test_roles_that_do_not_exist_are_refused(people: People, roles: list[str]) -> None:
    with pytest.raises(BadInput, match="roles"):
        people.invite(roles, by="ann")


# --- coming in -------------------------------------------------------------------------------------------------------


def test_who_logs_in_is_known_by_the_session(people: People) -> None:
    first = people.login("Ann ", PASSWORD)  # as somebody types it
    assert first is not None and people.by_session(first) == Person("ann", frozenset({"lead"}))
    assert people.login("ann", "wrong password") is None and people.login("nobody", PASSWORD) is None
    second = people.login("ann", PASSWORD, instead_of=first)
    assert second is not None and second != first
    assert people.by_session(first) is None and people.by_session(second) is not None
    people.logout(second)
    assert people.by_session(second) is None and people.by_session("") is None


def test_a_session_lasts_fourteen_days_from_the_last_visit(people: People, clock: Clock) -> None:
    session = people.login("ann", PASSWORD)
    assert session is not None
    for _ in range(3):
        clock.at += SESSION_SECONDS - 1
        assert people.by_session(session) is not None
    clock.at += SESSION_SECONDS
    assert people.by_session(session) is None


def test_a_visit_costs_a_write_once_a_day(people: People, store: Store, clock: Clock) -> None:
    session = people.login("ann", PASSWORD)
    assert session is not None

    def until() -> float:
        with store.reading("sessions") as connection:
            return float(connection.execute(sa.select(SESSIONS.c.expires_at)).scalar_one())

    begun = until()
    clock.at += DAY / 2
    people.by_session(session)
    assert until() == begun
    clock.at += DAY
    people.by_session(session)
    assert until() == clock.at + SESSION_SECONDS


def test_a_new_password_ends_every_session(people: People) -> None:
    others = [people.login("ann", PASSWORD) for _ in range(3)]
    with pytest.raises(BadInput, match="have now"):
        people.change_password("ann", "not this one", "another sentence")
    with pytest.raises(BadInput, match="10 characters"):
        people.change_password("ann", PASSWORD, "short")
    assert all(people.by_session(one or "") for one in others)
    mine = people.change_password("ann", PASSWORD, "another sentence")
    assert people.by_session(mine) is not None and not any(people.by_session(one or "") for one in others)
    assert people.login("ann", PASSWORD) is None and people.login("ann", "another sentence")


def test_who_forgot_the_password_gets_a_link_for_a_day(people: People, clock: Clock) -> None:
    joined(people, "bob")
    before = people.login("bob", PASSWORD)
    first, link = people.reset("bob", by="ann"), people.reset("bob", by="ann")
    for useless in (first, people.invite(["author"], by="ann")):
        with pytest.raises(BadInput, match="link"):
            people.renew(useless, "another sentence")
    with pytest.raises(BadInput, match="link"):
        people.join(link, "eve", PASSWORD)
    assert people.renew(link, "another sentence").name == "bob"
    assert people.by_session(before or "") is None and people.login("bob", "another sentence")
    with pytest.raises(BadInput, match="link"):
        people.renew(link, "and another one")
    late = people.reset("bob", by="ann")
    clock.at += DAY
    with pytest.raises(BadInput, match="link"):
        people.renew(late, "and another one")
    with pytest.raises(BadInput, match="nobody"):
        people.reset("eve", by="ann")


def test_a_wrong_name_takes_as_long_as_a_wrong_password(people: People) -> None:
    """By the real hash, alternating; a look-up without a hash would take a hundredth of it."""
    from pwdlib import PasswordHash
    from pwdlib.hashers.argon2 import Argon2Hasher

    with pytest.MonkeyPatch.context() as patch:
        real = PasswordHash((Argon2Hasher(),))
        patch.setattr(module, "_hasher", lambda: real)
        module._nobody.cache_clear()
        with people.store.writing() as connection:
            connection.execute(sa.update(ACCOUNTS).values(password=real.hash(PASSWORD)))
        people.login("nobody", PASSWORD)
        seconds: dict[str, list[float]] = {"ann": [], "nobody": []}
        for _ in range(7):
            for name, found in seconds.items():
                begun = time.perf_counter()
                assert people.login(name, "wrong password") is None
                found.append(time.perf_counter() - begun)
    module._nobody.cache_clear()
    known, unknown = (statistics.median(found) for found in seconds.values())
    assert 0.5 < known / unknown < 2


def test_two_passwords_are_hashed_at_once_and_no_more(people: People) -> None:
    busy, most, lock = [0], [0], threading.Lock()

    class Slow:
        def verify(self, password: str, stored: str) -> bool:
            with lock:
                busy[0] += 1
                most[0] = max(most[0], busy[0])
            time.sleep(0.02)
            with lock:
                busy[0] -= 1
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_hasher", Slow)
        threads = [threading.Thread(target=people.is_password, args=("ann", "x")) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most[0] == 2


# --- roles, and who is out -------------------------------------------------------------------------------------------


def test_roles_change_at_once(people: People) -> None:
    joined(people, "bob", "author")
    session = people.login("bob", PASSWORD)
    assert session is not None
    people.change("bob", by="ann", roles=["evaluator"])
    person = people.by_session(session)
    assert person is not None and person.may("evaluator") and not person.may("author") and not person.may("lead")
    lead = Person("x", frozenset({"lead"}))
    assert lead.may("author") and lead.may("evaluator")


def test_who_is_disabled_is_out_with_sessions_and_tokens(people: People) -> None:
    joined(people, "bob")
    session, token = people.login("bob", PASSWORD), people.make_token("bob", "script")
    assert people.by_session(session or "") and people.by_token(token)
    people.change("bob", by="ann", disabled=True)
    assert not people.by_session(session or "") and not people.by_token(token)
    assert people.login("bob", PASSWORD) is None
    people.change("bob", by="ann", disabled=False)
    assert not people.by_session(session or "") and not people.by_token(token)
    assert people.login("bob", PASSWORD)


def test_somebody_always_leads(people: People) -> None:
    joined(people, "bob")
    for change in ({"roles": ["author"]}, {"disabled": True}):
        with pytest.raises(BadInput, match="has to lead"):
            people.change("ann", by="ann", **change)  # type: ignore[arg-type]
    people.change("bob", by="ann", roles=["lead"])
    people.change("bob", by="ann", disabled=True)
    with pytest.raises(BadInput, match="has to lead"):
        people.change("ann", by="ann", disabled=True)  # bob leads and is out
    people.change("bob", by="ann", disabled=False)
    people.change("ann", by="bob", disabled=True)
    with pytest.raises(BadInput, match="nobody"):
        people.change("eve", by="bob", disabled=True)


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_opens_until_it_is_revoked_by_its_owner(people: People) -> None:
    joined(people, "bob")
    secret = people.make_token("bob", "  my   script ")
    (token,) = people.tokens("bob")
    assert secret.startswith("plt_") and token.label == "my script" and token.id not in secret
    assert people.by_token(secret) == Person("bob", frozenset({"evaluator"}))
    assert not people.revoke("ann", token.id) and not people.revoke("bob", "") and not people.revoke("bob", "%" * 16)
    assert people.by_token(secret)
    assert people.revoke("bob", token.id) and not people.revoke("bob", token.id)
    assert not people.by_token(secret) and not people.by_token(token.id) and not people.by_token("")
    assert people.tokens("bob")[0].revoked_at is not None and people.tokens("ann") == []
    for label in ("", "x" * 81, "a\x00b"):
        with pytest.raises(BadInput, match="label"):
            people.make_token("bob", label)


def test_a_token_opens_for_as_long_as_it_was_made_for(people: People, clock: Clock) -> None:
    short, ever = people.make_token("ann", "short", 7), people.make_token("ann", "ever")
    begun = clock.at
    clock.at = begun + 7 * DAY - 1
    assert people.by_token(short) and people.by_token(ever)
    clock.at = begun + 7 * DAY
    assert not people.by_token(short) and people.by_token(ever)
    assert {t.label: t.expires_at for t in people.tokens("ann")} == {"short": begun + 7 * DAY, "ever": None}
    for number in range(module.TOKENS_AT_MOST - 1):  # what is over is none of them
        people.make_token("ann", str(number))
    with pytest.raises(BadInput, match="Revoke one"):
        people.make_token("ann", "one more")


def test_nobody_has_tokens_without_end(people: People) -> None:
    for number in range(module.TOKENS_AT_MOST):
        people.make_token("ann", str(number))
    with pytest.raises(BadInput, match="Revoke one"):
        people.make_token("ann", "one more")


# --- the log ---------------------------------------------------------------------------------------------------------


def test_what_is_done_is_in_the_log(people: People, store: Store) -> None:
    joined(people, "bob")
    people.login("bob", "wrong password")
    people.change("bob", by="ann", roles=["author"])
    people.change("bob", by="ann", disabled=True)
    told = [(event.who, event.action) for event in reversed(log(store))]
    assert told == [
        ("the terminal", "invited"),
        ("ann", "joined"),
        ("ann", "invited"),
        ("bob", "joined"),
        ("bob", "failed to log in"),
        ("ann", "changed roles"),
        ("ann", "disabled"),
    ]
    assert log(store)[1].what == {"name": "bob", "roles": ["author"]}
    pages = [log(store, most=3)]
    while pages[-1]:
        pages.append(log(store, before=pages[-1][-1].number, most=3))
    assert [event for page in pages for event in page] == log(store)


def test_who_does_not_exist_leaves_no_trace_of_what_was_typed(people: People, store: Store) -> None:
    """People type their password where their name goes."""
    people.login("my secret sentence", "ann")
    assert "my secret sentence" not in everything(store)


def test_an_event_is_there_or_not_with_what_it_tells_of(people: People, store: Store) -> None:
    before = len(log(store))
    with pytest.raises(RuntimeError), store.writing() as connection:
        connection.execute(sa.insert(SESSIONS).values(hash="x", account="ann", created_at=0.0, expires_at=0.0))
        note(connection, "ann", "did something")
        raise RuntimeError
    assert len(log(store)) == before and "'x'" not in everything(store)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET who = 'eve'",
        "UPDATE audit SET who = 'eve' WHERE number = 1",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE number = 1",
        "INSERT OR REPLACE INTO audit (number, at, who, action, what) VALUES (1, 0, 'eve', 'x', '{}')",
        "INSERT INTO audit (number, at, who, action, what) VALUES (1, 0, 'eve', 'x', '{}') "
        "ON CONFLICT (number) DO UPDATE SET who = 'eve'",
        "TRUNCATE audit",
    ],
)
def test_the_log_is_append_only(people: People, store: Store, statement: str) -> None:
    before = log(store)
    if store.is_sqlite and "TRUNCATE" in statement:
        pytest.skip("SQLite has no TRUNCATE")
    if store.is_postgresql and "OR REPLACE" in statement:
        pytest.skip("PostgreSQL has no INSERT OR REPLACE")
    engine = sa.create_engine(store._engine.url)
    with pytest.raises(sa.exc.DatabaseError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()
    assert log(store) == before
    with store.writing() as connection:
        note(connection, "ann", "went on")
    assert len(log(store)) == len(before) + 1

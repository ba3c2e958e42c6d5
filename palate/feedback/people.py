"""People and what they may do: accounts, invites, sessions, tokens for programs, and the log of who did what.

No secret is stored: of passwords argon2id hashes, of everything that opens a door the SHA-256. Times are seconds since
1970.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from palate.errors import BadInput, PalateError
from palate.feedback.store import Store
from palate.feedback.tables import ACCOUNTS, AUDIT, DEMONSTRATIONS, INVITES, JUDGEMENTS, SESSIONS, TOKENS

ROLES = ("lead", "author", "evaluator")
DAY = 86_400.0
SESSION_SECONDS = 14 * DAY
"""Without a visit; every visit begins them anew."""
INVITE_SECONDS = 7 * DAY
RESET_SECONDS = 1 * DAY
"""How long a link to set a new password can be used."""
SHORTEST, LONGEST = 10, 1000
"""Characters of a password. Long ones cost time to hash."""
NAME = 40
"""Characters of a name at most; two at least."""
AT_ONCE = 2
"""Passwords that are hashed at the same moment: each takes 64 MiB."""
PATIENCE = 20.0
"""Seconds a password waits for its turn."""
TOKEN = "plt_"
"""How a token begins, so that whoever finds one knows what it is."""
TOKENS_AT_MOST = 50
SET_UP = "the terminal"
"""Who invited the first lead."""
COMMON = {
    "0123456789", "1111111111", "123123123123", "1234567890", "12345678910", "123456789a", "1q2w3e4r5t", "abcdefghij",
    "administrator", "iloveyou123", "letmein123", "password12", "password123", "password1234", "passwordpassword",
    "q1w2e3r4t5", "qwerty12345", "qwerty123456", "qwertyuiop", "qwertyuiop1", "welcome123", "zaq12wsxcde",
}  # fmt: skip
"""What is tried first by whoever guesses."""


@dataclass(frozen=True)
class Person:
    """Somebody who is logged in. `name` is the pseudonym in every record."""

    name: str
    roles: frozenset[str]

    def may(self, role: str) -> bool:
        """Whether this person has a role; a lead has all."""
        return role in self.roles or "lead" in self.roles


@dataclass(frozen=True)
class Account:
    """One person in the list of all."""

    name: str
    roles: frozenset[str]
    created_at: float
    disabled_at: float | None


@dataclass(frozen=True)
class Invite:
    """A link that can be used once. `id` names it and opens nothing."""

    id: str
    roles: frozenset[str]
    author: str
    account: str | None
    """Whose password it sets anew; None where somebody joins by it."""
    created_at: float
    expires_at: float


@dataclass(frozen=True)
class Token:
    """What a program comes in with, as a list shows it. `id` names it and opens nothing."""

    id: str
    label: str
    created_at: float
    expires_at: float | None
    """None: it lasts until somebody revokes it."""
    revoked_at: float | None


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    number: int
    at: float
    who: str
    action: str
    what: dict[str, Any]


# --- names and passwords ---------------------------------------------------------------------------------------------

_PARTS = frozenset(" -_.'")
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_ALIKE = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC")
"""Scripts that have letters in common, as far as eyes can tell."""


def named(text: str) -> str:
    """A name as it is stored (NFKC, one space between words). Raises BadInput where it could not be told from another
    or would spoil the page it stands on."""
    name = " ".join(unicodedata.normalize("NFKC", text).split())
    if not 2 <= len(name) <= NAME:
        raise BadInput(f"a name has 2 to {NAME} characters.", "name", "Take another one.")
    if _INVISIBLE.search(name) or any(unicodedata.category(c)[0] not in "LMN" and c not in _PARTS for c in name):
        raise BadInput("a name is made of letters, digits, spaces and - _ . '", "name", "Leave the rest out.")
    if unicodedata.category(name[0])[0] not in "LN":
        raise BadInput("a name begins with a letter or a digit.", "name", "Take another one.")
    scripts = {unicodedata.name(c, "?").split()[0] for c in name if c.isalpha()} & set(_ALIKE)
    if len(scripts) > 1:
        told = " and ".join(sorted(scripts)).title()
        raise BadInput(f"a name with letters of {told} looks like another.", "name", "Take those of one alphabet.")
    return name


def folded(name: str) -> str:
    """What two names have in common that look the same, or that people type for the same one."""
    spaced = " ".join(unicodedata.normalize("NFKC", name).split())
    return unicodedata.normalize("NFKC", spaced.casefold())


def _checked(password: str, name: str) -> str:
    """A password as it is hashed: however a keyboard composes its letters. Raises BadInput where it can be guessed."""
    password = unicodedata.normalize("NFKC", password)
    if not SHORTEST <= len(password) <= LONGEST:
        raise BadInput(f"it has {SHORTEST} characters or more.", "password", "Take a longer one; a sentence is fine.")
    if folded(password) == folded(name) or password.casefold() in COMMON or len(set(password)) < 3:
        raise BadInput("this one is tried first by whoever guesses.", "password", "Take another one.")
    return password


@functools.cache
def _hasher() -> PasswordHash:
    return PasswordHash((Argon2Hasher(),))  # argon2id with the parameters of RFC 9106 for little memory


_turns = threading.BoundedSemaphore(AT_ONCE)


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=PATIENCE):
        raise PalateError("password: too many people are logging in at this moment. Try again in a minute.")
    try:
        yield
    finally:
        _turns.release()


def _hash(password: str) -> str:
    with _turn():
        return _hasher().hash(password)


def _is(password: str, stored: str) -> bool:
    with _turn():
        return _hasher().verify(unicodedata.normalize("NFKC", password[:LONGEST]), stored)


@functools.cache
def _nobody() -> str:
    """The hash of a password that nobody has."""
    return _hash(secrets.token_hex(16))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _short(hash_: str) -> str:
    """Enough of a hash to name a row, and nothing to come in with."""
    return hash_[:16]


# --- the log ---------------------------------------------------------------------------------------------------------


def note(connection: sa.Connection, who: str, action: str, *, at: float | None = None, **what: Any) -> None:
    """Write into the log, inside the transaction of what it tells of: both are there or neither. `what` must not hold
    what people wrote, since nobody can take it out again."""
    now = time.time() if at is None else at
    connection.execute(sa.insert(AUDIT).values(at=now, who=who, action=action, what=what))


def log(store: Store, *, before: int | None = None, most: int = 50) -> list[Event]:
    """The newest events, of those with a number below `before`."""
    query = sa.select(AUDIT).order_by(AUDIT.c.number.desc()).limit(most)
    if before is not None:
        query = query.where(AUDIT.c.number < before)
    with store.reading("audit") as connection:
        return [Event(row.number, row.at, row.who, row.action, dict(row.what)) for row in connection.execute(query)]


# --- people ----------------------------------------------------------------------------------------------------------


class People:
    """Of one store."""

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        self.store, self.now = store, now

    # --- who there is ----------------------------------------------------------------------------------------------

    def accounts(self) -> list[Account]:
        """Everybody, by name."""
        with self.store.reading("accounts") as connection:
            found = connection.execute(sa.select(ACCOUNTS).order_by(ACCOUNTS.c.folded)).all()
        return [Account(row.name, frozenset(row.roles), row.created_at, row.disabled_at) for row in found]

    def account(self, name: str) -> Account | None:
        """One of them."""
        with self.store.reading("accounts") as connection:
            row = connection.execute(sa.select(ACCOUNTS).where(ACCOUNTS.c.name == name)).one_or_none()
        return Account(row.name, frozenset(row.roles), row.created_at, row.disabled_at) if row is not None else None

    def change(self, name: str, *, by: str, roles: Iterable[str] | None = None, disabled: bool | None = None) -> None:
        """Give a person other roles, or shut them out (with their sessions and tokens) and let them in again.

        Raises BadInput where there is no such account, no such role, or no lead left afterwards.
        """
        with self.store.writing() as connection:
            every = {row.name: row for row in connection.execute(sa.select(ACCOUNTS).with_for_update())}
            if name not in every:
                raise BadInput("there is nobody of this name.", name[:NAME], "See the list of people.")
            before = every[name]
            now_roles = sorted(before.roles) if roles is None else _roles(roles)
            out = before.disabled_at is not None if disabled is None else disabled
            others = (row for row in every.values() if row.name != name)
            if ("lead" not in now_roles or out) and not any(_leads(row) for row in others):
                raise BadInput("somebody has to lead.", name, "Make another person a lead first.")
            if now_roles != sorted(before.roles):
                connection.execute(sa.update(ACCOUNTS).where(ACCOUNTS.c.name == name).values(roles=now_roles))
                self._note(connection, by, "changed roles", name=name, roles=now_roles)
            if out != (before.disabled_at is not None):
                until = self.now() if out else None
                connection.execute(sa.update(ACCOUNTS).where(ACCOUNTS.c.name == name).values(disabled_at=until))
                if out:
                    self._close(connection, name)
                    self._revoke(connection, name)
                self._note(connection, by, "disabled" if out else "enabled", name=name)

    # --- invites -----------------------------------------------------------------------------------------------------

    def setup_invite(self) -> str | None:
        """For the first lead, where there is nobody yet: a link's secret, in place of the one before; else None."""
        with self.store.writing() as connection:
            if connection.execute(sa.select(ACCOUNTS.c.name).limit(1)).first() is not None:
                return None
            return self._invite(connection, ["lead"], SET_UP)

    def lead_invite(self) -> str:
        """For whoever stands at the terminal and has lost every lead's password."""
        with self.store.writing() as connection:
            return self._invite(connection, ["lead"], SET_UP)

    def _invite(self, connection: sa.Connection, roles: list[str], by: str, account: str | None = None) -> str:
        if by == SET_UP:
            connection.execute(sa.delete(INVITES).where(INVITES.c.author == SET_UP, INVITES.c.used_by.is_(None)))
        secret, now = secrets.token_urlsafe(32), self.now()
        connection.execute(
            sa.insert(INVITES).values(
                hash=_sha256(secret),
                roles=roles,
                author=by,
                account=account,
                created_at=now,
                expires_at=now + (INVITE_SECONDS if account is None else RESET_SECONDS),
            )
        )
        told = {"roles": roles} if account is None else {"name": account}
        self._note(connection, by, "invited" if account is None else "made a link for a new password", **told)
        return secret

    def invite(self, roles: Iterable[str], *, by: str) -> str:
        """A link's secret by which one person can join within seven days. Raises BadInput at an unknown role."""
        wanted = _roles(roles)
        with self.store.writing() as connection:
            return self._invite(connection, wanted, by)

    def reset(self, name: str, *, by: str) -> str:
        """A link's secret by which a person who forgot their password sets a new one within a day; earlier ones of
        theirs end. Raises BadInput where there is no such account."""
        with self.store.writing() as connection:
            if connection.execute(sa.select(ACCOUNTS.c.name).where(ACCOUNTS.c.name == name)).first() is None:
                raise BadInput("there is nobody of this name.", name[:NAME], "See the list of people.")
            connection.execute(sa.delete(INVITES).where(INVITES.c.account == name, INVITES.c.used_by.is_(None)))
            return self._invite(connection, [], by, name)

    def invites(self) -> list[Invite]:
        """Those that can still be used, the newest first."""
        query = sa.select(INVITES).where(*self._usable()).order_by(INVITES.c.created_at.desc(), INVITES.c.hash)
        with self.store.reading("invites") as connection:
            return [_invite(row) for row in connection.execute(query)]

    def invited(self, secret: str) -> Invite | None:
        """The invite that a link opens; None when it was used, has expired or never was."""
        with self.store.reading("invites") as connection:
            query = sa.select(INVITES).where(INVITES.c.hash == _sha256(secret), *self._usable())
            row = connection.execute(query).one_or_none()
        return _invite(row) if row is not None else None

    def uninvite(self, id_: str, *, by: str) -> bool:
        """End a link that nobody has used; whether there was one."""
        with self.store.writing() as connection:
            query = sa.delete(INVITES).where(INVITES.c.hash.startswith(id_, autoescape=True), *self._usable())
            gone = len(id_) == 16 and _count(connection.execute(query)) > 0
            if gone:
                self._note(connection, by, "took an invite back")
            return gone

    def _usable(self) -> tuple[sa.ColumnElement[bool], ...]:
        return INVITES.c.used_by.is_(None), INVITES.c.expires_at > self.now()

    def join(self, secret: str, name: str, password: str) -> Person:
        """Use an invite. Raises BadInput where it cannot be used any more, or where the name or the password cannot
        be; the invite stays good then."""
        invite = self.invited(secret)
        if invite is None or invite.account is not None:
            raise _stale()
        name = named(name)
        hashed = _hash(_checked(password, name))
        try:
            with self.store.writing() as connection:
                self._use(connection, secret, name)
                if self._taken(connection, name, first=invite.author == SET_UP):
                    raise _taken()
                roles = sorted(invite.roles)
                connection.execute(
                    sa.insert(ACCOUNTS).values(
                        name=name, folded=folded(name), roles=roles, password=hashed, created_at=self.now()
                    )
                )
                self._note(connection, name, "joined", roles=roles, invited_by=invite.author)
        except sa.exc.IntegrityError:  # somebody took the name at the same moment
            raise _taken() from None
        return Person(name, invite.roles)

    def _use(self, connection: sa.Connection, secret: str, name: str) -> None:
        """One statement, so that of two who come at once one is too late."""
        used = sa.update(INVITES).where(INVITES.c.hash == _sha256(secret), *self._usable()).values(used_by=name)
        if _count(connection.execute(used)) != 1:
            raise _stale()

    def _taken(self, connection: sa.Connection, name: str, *, first: bool) -> bool:
        """Whether somebody has this name, or left records under it that whoever joins must not be able to change.
        The first lead comes back to what they did while nobody had to log in."""
        if connection.execute(sa.select(ACCOUNTS.c.name).where(ACCOUNTS.c.folded == folded(name))).first() is not None:
            return True
        if first:
            return False
        columns = (JUDGEMENTS.c.annotator, DEMONSTRATIONS.c.author, AUDIT.c.who)
        names = sa.union(*(sa.select(column.label("name")) for column in columns))
        return folded(name) in {folded(found) for found in connection.execute(names).scalars()}

    def renew(self, secret: str, password: str) -> Person:
        """Set a new password by a link of `reset`; every session of that person ends. Raises BadInput."""
        invite = self.invited(secret)
        if invite is None or invite.account is None:
            raise _stale()
        hashed = _hash(_checked(password, invite.account))
        with self.store.writing() as connection:
            self._use(connection, secret, invite.account)
            self._set_password(connection, invite.account, hashed)
            row = connection.execute(sa.select(ACCOUNTS).where(ACCOUNTS.c.name == invite.account)).one()
        return Person(row.name, frozenset(row.roles))

    # --- coming in ---------------------------------------------------------------------------------------------------

    def login(self, name: str, password: str, *, instead_of: str = "") -> str | None:
        """A new session's secret; None where the name or the password is wrong, which takes as long.

        instead_of: the session this browser had, which ends.
        """
        query = sa.select(ACCOUNTS).where(ACCOUNTS.c.folded == folded(name))
        with self.store.reading("accounts") as connection:
            row = connection.execute(query).one_or_none()
        nobody = _nobody()
        right = _is(password, row.password if row is not None else nobody)
        if row is None:
            return None
        if not right or row.disabled_at is not None:
            with self.store.writing() as connection:
                self._note(connection, row.name, "failed to log in")
            return None
        return self.open(row.name, instead_of=instead_of)

    def open(self, name: str, *, instead_of: str = "") -> str:
        """A new session of somebody who has shown who they are."""
        secret, now = secrets.token_urlsafe(32), self.now()
        with self.store.writing() as connection:
            gone = sa.or_(SESSIONS.c.expires_at <= now, SESSIONS.c.hash == _sha256(instead_of))
            connection.execute(sa.delete(SESSIONS).where(gone))
            connection.execute(
                sa.insert(SESSIONS).values(
                    hash=_sha256(secret), account=name, created_at=now, expires_at=now + SESSION_SECONDS
                )
            )
            self._note(connection, name, "logged in")
        return secret

    def logout(self, secret: str) -> None:
        """End one session."""
        with self.store.writing() as connection:
            query = sa.select(SESSIONS.c.account).where(SESSIONS.c.hash == _sha256(secret))
            name = connection.execute(query).scalar_one_or_none()
            if name is not None:
                connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.hash == _sha256(secret)))
                self._note(connection, name, "logged out")

    def by_session(self, secret: str) -> Person | None:
        """Whose session it is, which begins anew with every day it is used."""
        hash_, now = _sha256(secret), self.now()
        with self.store.reading("sessions") as connection:
            row = connection.execute(BY_SESSION, {"secret": hash_, "now": now}).one_or_none()
        if row is None:
            return None
        if row.expires_at < now + SESSION_SECONDS - DAY:
            with self.store.writing() as connection:
                later = sa.update(SESSIONS).where(SESSIONS.c.hash == hash_).values(expires_at=now + SESSION_SECONDS)
                connection.execute(later)
        return Person(row.name, frozenset(row.roles))

    def change_password(self, name: str, old: str, new: str) -> str:
        """Every session of theirs ends; the secret of a new one is returned. Raises BadInput."""
        with self.store.reading("accounts") as connection:
            row = connection.execute(sa.select(ACCOUNTS).where(ACCOUNTS.c.name == name)).one_or_none()
        if row is None or not _is(old, row.password):
            raise BadInput("this is not the one you have now.", "password", "Try again.")
        hashed = _hash(_checked(new, name))
        with self.store.writing() as connection:
            self._set_password(connection, name, hashed)
        return self.open(name)

    def is_password(self, name: str, password: str) -> bool:
        """Whether it is this person's."""
        with self.store.reading("accounts") as connection:
            query = sa.select(ACCOUNTS.c.password).where(ACCOUNTS.c.name == name)
            stored = connection.execute(query).scalar_one_or_none()
        return _is(password, stored if stored is not None else _nobody()) and stored is not None

    def _set_password(self, connection: sa.Connection, name: str, hashed: str) -> None:
        connection.execute(sa.update(ACCOUNTS).where(ACCOUNTS.c.name == name).values(password=hashed))
        self._close(connection, name)
        self._note(connection, name, "changed the password")

    def _close(self, connection: sa.Connection, name: str) -> None:
        connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.account == name))

    # --- programs ----------------------------------------------------------------------------------------------------

    def make_token(self, name: str, label: str, days: int | None = None) -> str:
        """A token's secret, shown this once. days: how long it opens anything, None for ever. Raises BadInput where it
        has no label or there are too many."""
        label = " ".join(label.split())
        if not 1 <= len(label) <= 80 or not label.isprintable():
            raise BadInput("a token has a label of 1 to 80 characters.", "label", "Say what it is for.")
        secret = TOKEN + secrets.token_urlsafe(32)
        with self.store.writing() as connection:
            now = self.now()
            valid = (TOKENS.c.account == name, TOKENS.c.revoked_at.is_(None), _lasts(TOKENS, now))
            count = sa.select(sa.func.count()).select_from(TOKENS).where(*valid)
            if connection.execute(count).scalar_one() >= TOKENS_AT_MOST:
                raise BadInput(f"you have {TOKENS_AT_MOST} of them.", "token", "Revoke one you do not need.")
            connection.execute(
                sa.insert(TOKENS).values(
                    hash=_sha256(secret),
                    account=name,
                    label=label,
                    created_at=now,
                    expires_at=now + days * DAY if days is not None else None,
                )
            )
            self._note(connection, name, "made a token", label=label, days=days)
        return secret

    def tokens(self, name: str) -> list[Token]:
        """A person's own, the newest first."""
        query = sa.select(TOKENS).where(TOKENS.c.account == name).order_by(TOKENS.c.created_at.desc(), TOKENS.c.hash)
        with self.store.reading("tokens") as connection:
            return [
                Token(_short(r.hash), r.label, r.created_at, r.expires_at, r.revoked_at)
                for r in connection.execute(query)
            ]

    def revoke(self, name: str, id_: str) -> bool:
        """End a token of this person's; whether there was one."""
        with self.store.writing() as connection:
            return len(id_) == 16 and self._revoke(connection, name, id_) > 0

    def _revoke(self, connection: sa.Connection, name: str, id_: str = "") -> int:
        which = (
            TOKENS.c.account == name,
            TOKENS.c.revoked_at.is_(None),
            TOKENS.c.hash.startswith(id_, autoescape=True),
        )
        labels = connection.execute(sa.select(TOKENS.c.label).where(*which)).scalars().all()
        connection.execute(sa.update(TOKENS).where(*which).values(revoked_at=self.now()))
        for label in labels:
            self._note(connection, name, "revoked a token", label=label)
        return len(labels)

    def by_token(self, secret: str) -> Person | None:
        """Whose token it is."""
        with self.store.reading("tokens") as connection:
            row = connection.execute(BY_TOKEN, {"secret": _sha256(secret), "now": self.now()}).one_or_none()
        return Person(row.name, frozenset(row.roles)) if row is not None else None

    def _note(self, connection: sa.Connection, who: str, action: str, **what: Any) -> None:
        note(connection, who, action, at=self.now(), **what)


def _lasts(table: sa.Table, now: Any) -> sa.ColumnElement[bool]:
    return sa.or_(table.c.expires_at.is_(None), table.c.expires_at > now)


# What every request asks, made once: making it costs more than asking.
BY_TOKEN = (
    sa.select(ACCOUNTS.c.name, ACCOUNTS.c.roles)
    .join(TOKENS, TOKENS.c.account == ACCOUNTS.c.name)
    .where(
        TOKENS.c.hash == sa.bindparam("secret"),
        TOKENS.c.revoked_at.is_(None),
        _lasts(TOKENS, sa.bindparam("now")),
        ACCOUNTS.c.disabled_at.is_(None),
    )
)
BY_SESSION = (
    sa.select(ACCOUNTS.c.name, ACCOUNTS.c.roles, SESSIONS.c.expires_at)
    .join(SESSIONS, SESSIONS.c.account == ACCOUNTS.c.name)
    .where(
        SESSIONS.c.hash == sa.bindparam("secret"),
        SESSIONS.c.expires_at > sa.bindparam("now"),
        ACCOUNTS.c.disabled_at.is_(None),
    )
)


def _roles(roles: Iterable[str]) -> list[str]:
    wanted = sorted(set(roles))
    if not wanted or not set(wanted) <= set(ROLES):
        raise BadInput("a person has one or more of these.", "roles", f"Name {', '.join(ROLES)}.")
    return wanted


def _leads(row: Any) -> bool:
    return "lead" in row.roles and row.disabled_at is None


def _invite(row: Any) -> Invite:
    return Invite(_short(row.hash), frozenset(row.roles), row.author, row.account, row.created_at, row.expires_at)


def _count(result: sa.CursorResult[Any] | sa.Result[Any]) -> int:
    return cast("sa.CursorResult[Any]", result).rowcount


def _stale() -> BadInput:
    return BadInput("this link was used, or it has expired.", "invite", "Ask for a new one.")


def _taken() -> BadInput:
    return BadInput("somebody has this name, or one that looks like it.", "name", "Take another one.")

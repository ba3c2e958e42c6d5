"""A server of PostgreSQL for the tests: started by an unprivileged user in a folder of its own, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

FOLDERS = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), os.environ.get("PATH", "")]


def tool(name: str) -> str | None:
    """Where a program of PostgreSQL is; Debian keeps most of them off the path."""
    return shutil.which(name, path=os.pathsep.join(FOLDERS))


AVAILABLE = tool("initdb") is not None and tool("pg_ctl") is not None


def _user() -> dict[str, Any]:
    """As whom it runs: PostgreSQL refuses to be started by root."""
    if os.geteuid() != 0:
        return {}
    names = [entry.pw_name for entry in pwd.getpwall()]
    name = "postgres" if "postgres" in names else "nobody"
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


HASTY = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
"""For tests that make hundreds of databases and lose power in none."""


@contextmanager
def server(*, more: str = "") -> Iterator[str]:
    """The start of a URL: a database's name behind it makes it whole. more: options of the server."""
    who = _user()
    folder = Path(tempfile.mkdtemp(prefix="palate-pg-"))
    if who:
        shutil.chown(folder, who["user"])
    data = folder / "data"

    def do(*command: str) -> None:
        subprocess.run(command, check=True, cwd=folder, capture_output=True, **who)

    initdb, pg_ctl = tool("initdb"), tool("pg_ctl")
    assert initdb and pg_ctl
    try:
        do(initdb, "-D", str(data), "-A", "trust", "-U", "palate", "--no-sync", "-E", "UTF8")
        options = f"-k {folder} -c listen_addresses= -c max_connections=100 {more}"
        do(pg_ctl, "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://palate@/{{name}}?host={folder}"
        finally:
            do(pg_ctl, "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def empty(url: str) -> str:
    """The one database that tests take in turn, emptied: that is ten times as fast as to make one."""
    here = url.format(name="postgres")
    engine = sa.create_engine(here, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return here

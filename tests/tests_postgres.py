"""A server of PostgreSQL for the tests: started by an unprivileged user in a folder of its own, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
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


@contextmanager
def server() -> Iterator[str]:
    """The start of a URL: a database's name behind it makes it whole."""
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
        options = f"-k {folder} -c listen_addresses= -c max_connections=100"
        do(pg_ctl, "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://palate@/{{name}}?host={folder}"
        finally:
            do(pg_ctl, "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(url: str) -> Iterator[str]:
    """An empty database of a server, dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    whole = sa.create_engine(url.format(name="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with whole.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        yield url.format(name=name)
        with whole.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        whole.dispose()

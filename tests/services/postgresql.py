"""PostgreSQL from the system, with one user who may make databases."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.tls import Certificate
from tests import services

USER = "testbed"
PASSWORD = "the-registrys-password"
DEBIAN = Path("/usr/lib/postgresql")
RUNS_AS = ("postgres", "nobody")  # it refuses to run as root


@dataclass(frozen=True)
class Postgresql:
    """Where a running PostgreSQL listens; `USER` and `PASSWORD` open it."""

    host: str
    port: int
    product: services.Product

    def new_database(self, name: str, *, template: str = "template0") -> str:
        """Make a database; its address as TESTBED_REGISTRY wants it.

        template: what it is a copy of, to which nobody may be connected; by default it is empty.
        """
        command = [_command("createdb"), "-h", self.host, "-p", str(self.port), "-U", USER]
        command += ["--template", template, name]
        subprocess.run(command, check=True, env=os.environ | {"PGPASSWORD": PASSWORD})
        return f"postgresql://{USER}@{self.host}:{self.port}/{name}"

    def crash(self) -> None:
        """End it at once, with all connections; what it had committed stays."""
        self.product.process.send_signal(signal.SIGQUIT)
        self.product.process.wait(services.STOPPED_WITHIN_S)


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A temporary folder that PostgreSQL may use, whoever runs the tests."""
    with tempfile.TemporaryDirectory(prefix="testbed-postgresql-") as name:
        folder = Path(name)
        if user := _other_user():
            account = pwd.getpwnam(user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        yield folder


@contextlib.contextmanager
def serve(
    folder: Path, *, port: int = 0, certificate: Certificate | None = None
) -> Iterator[Postgresql]:
    """Run PostgreSQL on loopback with its data in `folder`, which a later start carries on.

    folder: from `data_folder`.  port: 0 takes a free one.  certificate: what it shows, None for no
    TLS.
    """
    data = folder / "data"
    if not data.exists():
        _initialise(folder, data)
    port = port or services.free_port()
    command = [_command("pg_isready"), "-q", "-h", services.LOOPBACK, "-p", str(port)]
    with services.running(
        [
            _command("postgres"),
            *("-D", str(data), "-h", services.LOOPBACK, "-p", str(port)),
            *("-c", "unix_socket_directories=", "-c", "fsync=off"),
            *(_secured(folder, certificate) if certificate else ()),
        ],
        folder=folder,
        ready=lambda: subprocess.run(command, check=False).returncode == 0,
        user=_other_user(),
        stop=signal.SIGINT,  # SIGTERM would wait for its clients
    ) as product:
        yield Postgresql(services.LOOPBACK, port, product)


def _secured(folder: Path, certificate: Certificate) -> Iterator[str]:
    """It takes a key only from a file of its own user's."""
    yield from ("-c", "ssl=on")
    for name, file in (("ssl_cert_file", certificate.chain), ("ssl_key_file", certificate.key)):
        own = folder / name
        own.write_bytes(file.read_bytes())
        own.chmod(0o600)
        if user := _other_user():
            shutil.chown(own, user)
        yield from ("-c", f"{name}={own}")


def _initialise(folder: Path, data: Path) -> None:
    password = folder / "password"
    password.write_text(PASSWORD)
    command = [
        _command("initdb"),
        *("--pgdata", str(data), "--username", USER, "--pwfile", str(password)),
        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=_other_user(), cwd=folder)


def _other_user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {each.pw_name for each in pwd.getpwall()}
    return next(name for name in RUNS_AS if name in known)


def _command(name: str) -> str:
    """Debian keeps its programs away from PATH, a folder a version."""
    versions = sorted(DEBIAN.glob("[0-9]*"), key=lambda each: int(each.name), reverse=True)
    return services.found(name, *(each / "bin" / name for each in versions))

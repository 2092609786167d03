"""The address of a PostgreSQL server, as it is set; loads nothing that speaks to one."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

PORT = 5432
TLS = ("prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class PostgresqlAddress:
    """The address of a PostgreSQL server, with user, database and TLS mode.

    tls: as libpq's sslmode.  ca: whose certificates are believed, where it is not libpq that says.
    """

    user: str
    host: str
    port: int
    database: str
    password: str = field(repr=False, default="")
    tls: str = "prefer"
    ca: Path | None = None

    def __str__(self) -> str:
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"

    @classmethod
    def parse(cls, text: str, password: str = "", ca: Path | None = None) -> "PostgresqlAddress":
        """Parse `postgresql://user@host:port/database?sslmode=…`; raises ValueError.

        ca: asks for verify-full, unless the address asks for verify-ca.
        """
        try:
            parts = urlsplit(text)
            port = parts.port or PORT
        except ValueError as exc:
            raise ValueError(f"the registry's address is no URL: {exc}") from exc
        if parts.password is not None:
            raise ValueError(
                "the password does not stand in the registry's address: set"
                " TESTBED_REGISTRY_PASSWORD"
            )
        database = unquote(parts.path.removeprefix("/"))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        mode = query.pop("sslmode", "prefer")
        whole = parts.scheme == "postgresql" and parts.username and parts.hostname and database
        if not whole or "/" in database or query or mode not in TLS:
            raise ValueError(
                f"{text!r} is no registry: write sqlite, or postgresql://user@host:port/database,"
                f" with ?sslmode={'|'.join(TLS[1:])} where wanted"
            )
        user, host = unquote(parts.username or ""), parts.hostname or ""
        if ca is not None and mode != "verify-ca":
            mode = "verify-full"
        return cls(user, host, port, database, password, mode, ca)

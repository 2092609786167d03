"""`testbed backup` and `restore`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import prompt, run
from testbed.terminal.options import Json, example, settings
from testbed.terminal.screen import notes, out, print_json

if TYPE_CHECKING:
    from testbed_api.backup.rights import BackupRight

NewData = Annotated[Path | None, typer.Option(help="new data folder (default: testbed-data)")]
EmptyStore = Annotated[
    str | None,
    typer.Option(help="sample store, as for `testbed up`; must be empty (default: duckdb)"),
]
EmptyRegistry = Annotated[
    str | None, typer.Option(help="registry, as for `testbed up`; must be empty (default: sqlite)")
]
Sha256 = Annotated[
    str | None,
    typer.Option(
        help="SHA-256 of the manifest, as `testbed backup` printed it (default: not checked)"
    ),
]
AuditKey = Annotated[
    Path | None,
    typer.Option(
        help="copy of the former server's audit.key, to go on with its key (default: none is put"
        " into the data folder)"
    ),
]
Former = Annotated[
    Path | None,
    typer.Option(
        help="data folder of the former, stopped server: its registry, which is newer, takes the"
        " place of the backup's (default: the backup's registry)"
    ),
]
Ended = Annotated[
    list[str] | None,
    typer.Option(
        "--end",
        help="right of the backup that has ended since, as in its list: grant:4, token:7,"
        " person:ann, machine:detector; may be repeated (default: none)",
    ),
]
ConfirmRights = Annotated[
    bool,
    typer.Option("--confirm-rights", help="the rights in the backup hold again (default: ask)"),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(epilog=example("testbed backup backup-1"))(backup)
    app.command(epilog=example("testbed restore backup-1 --data new --audit-key key --former old"))(
        restore
    )


def backup(
    folder: Annotated[Path, typer.Argument(help="new folder for the backup")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="data folder of a stopped server (default: back up the running server at"
            " TESTBED_API)"
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="with --data: sample store, as for `testbed up` (default: duckdb)"),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(help="with --data: registry, as for `testbed up` (default: sqlite)"),
    ] = None,
    json: Json = False,
) -> None:
    """Back up registry, ledger and store, with the SHA-256 of every file."""
    from testbed_api.settings import ServerSettings

    stopped = None
    if data is not None:
        stopped = settings(ServerSettings, folder=data, store=store, registry=registry)
    from testbed.server import backup as server_backup

    manifest = run.run(server_backup.backup(folder, stopped, WallClock()))
    report = server_backup.as_json(manifest, folder)
    print_json(report) if json else server_backup.print_backup(manifest, folder, stopped, out)


def restore(
    folder: Annotated[Path, typer.Argument(help="folder of the backup")],
    data: NewData = None,
    store: EmptyStore = None,
    registry: EmptyRegistry = None,
    sha256: Sha256 = None,
    audit_key: AuditKey = None,
    former: Former = None,
    end: Ended = None,
    confirm_rights: ConfirmRights = False,
    json: Json = False,
) -> None:
    """Check a backup, and restore it into an empty data folder and an empty store."""
    from testbed_api.settings import ServerSettings

    target = settings(ServerSettings, folder=data, store=store, registry=registry)
    from testbed.server import backup as server_backup
    from testbed_api.backup.rights import RightName

    options = run.call(
        lambda: server_backup.RestoreOptions(
            sha256=sha256,
            audit_key=audit_key,
            former=former,
            ended=frozenset(map(RightName.parse, end or ())),
        )
    )
    approve = partial(_approve, folder, confirmed=confirm_rights)
    manifest, restored = run.run(
        server_backup.restore(folder, target, WallClock(), options, approve), keeps_data=True
    )
    report = server_backup.as_json(manifest, folder)
    print_json(report) if json else server_backup.print_restored(manifest, restored, target, out)


def _approve(folder: Path, rights: Sequence["BackupRight"], *, confirmed: bool) -> None:
    """Print the rights in a backup; raises Refused unless a person says that they hold again."""
    from testbed.server import backup as server_backup

    server_backup.print_rights(rights, folder, notes)
    prompt.must_confirm(
        "do these rights hold again?",
        confirmed=confirmed,
        hint="read the list, name what has ended since with --end, and give --confirm-rights",
    )

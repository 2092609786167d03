"""`testbed backup` and `restore`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from broker.clock import WallClock
from testbed.terminal import run
from testbed.terminal.options import Json, example, settings
from testbed.terminal.screen import out, print_json


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(epilog=example("testbed backup backup-1"))(backup)
    app.command(epilog=example("testbed restore backup-1 --data new --audit-key key"))(restore)


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
        from testbed_api import data_folder

        stopped = settings(ServerSettings, folder=data, store=store, registry=registry)
        run.call(partial(data_folder.check_exists, data))
    from testbed.server import backup as server_backup

    manifest = run.run(server_backup.backup(folder, stopped, WallClock()))
    report = server_backup.as_json(manifest, folder)
    print_json(report) if json else server_backup.print_backup(manifest, folder, stopped, out)


def restore(
    folder: Annotated[Path, typer.Argument(help="folder of the backup")],
    data: Annotated[
        Path | None, typer.Option(help="new data folder (default: testbed-data)")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="sample store, as for `testbed up`; must be empty (default: duckdb)"),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(help="registry, as for `testbed up`; must be empty (default: sqlite)"),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(
            help="SHA-256 of the manifest, as `testbed backup` printed it (default: not checked)"
        ),
    ] = None,
    audit_key: Annotated[
        Path | None,
        typer.Option(
            help="copy of the former server's audit.key, to go on with its key (default: none is"
            " put into the data folder)"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check a backup, and restore it into an empty data folder and an empty store."""
    from testbed_api.settings import ServerSettings

    target = settings(ServerSettings, folder=data, store=store, registry=registry)
    from testbed.server import backup as server_backup

    manifest, losses = run.run(
        server_backup.restore(folder, target, WallClock(), sha256, audit_key), keeps_data=True
    )
    report = server_backup.as_json(manifest, folder)
    print_json(report) if json else server_backup.print_restored(manifest, losses, target, out)

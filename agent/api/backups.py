"""Backups: list, make, show, delete and restore them, and hand out their archives."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agent.api.bodies import no_fields
from agent.api.databases import as_json
from agent.api.lists import listed, page_of
from agent.api.service import CHANGE, begin_change, database_of, permitted, principal_of, service_of, was_done
from agent.backups.safety import is_wished
from agent.databases import Database
from agent.errors import BackupNotFound, DatabaseNotFound, RangeInvalid
from agent.paging import ListMeta
from agent.tasks import CREATE_BACKUP, DELETE_BACKUP, DOWNLOAD_BACKUP, RESTORE_BACKUP
from engines.action import Effect

if TYPE_CHECKING:
    from agent.backups.record import Backup
    from agent.operations.record import Operation

Status = Literal["scheduled", "running", "done", "error", "cancelling", "cancelled"]


class BackupContents(BaseModel):
    """What the dump in an archive says of itself."""

    engine: str
    flavour: str | None
    """`mysql` or `mariadb`, where an engine has several."""
    readable_version: str
    """Of the server that was dumped."""
    database: str
    """The logical database."""
    tool: str
    """What made the dump, with its version."""
    notes: list[str]
    """What a person should know before restoring it."""


class BackupResource(BaseModel):
    """One backup of one database."""

    id: str
    database_id: str
    name: str
    """With `.tar.gz` it is the name of its archive."""
    status: Status
    type: Literal["manual", "periodic"]
    method: Literal["manual", "periodic"]
    """The same as `type`: known clients read one or the other."""
    size: int | None
    """Bytes of its archive, once it is done."""
    sha256: str | None
    created_at: datetime
    finished_at: datetime | None
    operation_id: str
    error: str | None
    logical_database: str | None
    """Another one of the server, backed up before it was destroyed and restored there; null: the deployment's own."""
    contents: BackupContents | None
    """What is in it, once it is done."""


class BackupBody(BaseModel):
    """The body of `GET /api/backups/:id`."""

    database_backup: BackupResource


class BackupsBody(BaseModel):
    """The body of `GET /api/databases/:id/backups`."""

    database_backups: list[BackupResource]
    meta: ListMeta | None = Field(None, description="Where a page stands, if one was asked for.")


class ArchiveBody(BaseModel):
    """The body of `GET /api/databases/:id/backups/:backup/archive`."""

    download_url: str
    """Absolute; takes no token and lasts a quarter of an hour."""


class RestorationResource(BaseModel):
    """A backup that is being brought back, or was."""

    id: str
    """That of its operation too."""
    database_id: str
    source_backup_id: str
    safety_backup_id: str | None
    """Of what it replaces, made first where `backup_before_destroy` says so."""
    status: Status
    progress: int
    """Percent."""
    step: str
    error: str | None
    notes: list[str]
    """What was replaced, what could not be brought back."""
    operation_id: str
    created_at: datetime
    finished_at: datetime | None


class RestorationBody(BaseModel):
    """The body of `GET /api/databases/:id/backup_restorations/:restoration`."""

    backup_restoration: RestorationResource


async def list_backups(request: Request, database_id: str) -> Response:
    """List the backups of a database, newest first: all of them, or a page."""
    _, database = database_of(request, database_id)
    page = page_of(request)
    return listed("database_backups", await service_of(request).backups.newest(database.id), shown, page)


async def create_backup(request: Request, database_id: str) -> Response:
    """Begin to make a backup; it is `done` once its archive is written and read back."""
    principal, database = permitted(request, database_id, CREATE_BACKUP)
    await no_fields(request)
    with database.admitted(CREATE_BACKUP.effect):
        backup = await service_of(request).backups.begin(database, principal.name)
    return as_json({"database_backup": shown(backup)}, 201)


async def get_backup(request: Request, database_id: str, backup_id: str) -> Response:
    """Show one backup."""
    _, database = database_of(request, database_id)
    return as_json({"database_backup": shown(await _backup_of(request, database, backup_id))})


async def get_backup_alone(request: Request, backup_id: str) -> Response:
    """Show one backup, found by its own id."""
    principal = principal_of(request)
    service = service_of(request)
    backup = await service.backups.find(backup_id)
    try:
        service.databases.find(principal, backup.database_id)
    except DatabaseNotFound:
        raise BackupNotFound from None
    return as_json({"database_backup": shown(backup)})


async def delete_backup(request: Request, database_id: str, backup_id: str) -> Response:
    """Delete a backup and its archive."""
    principal, database = permitted(request, database_id, DELETE_BACKUP)
    await no_fields(request)
    service = service_of(request)

    async def look() -> list[str]:
        try:
            return [(await _backup_of(request, database, backup_id)).id]
        except BackupNotFound:
            return []

    if await was_done(request, look):
        return Response(status_code=204)
    backup = await _backup_of(request, database, backup_id)
    await service.backups.delete(backup, request.scope[CHANGE], begin=partial(begin_change, request, look))
    service.log.info("backup_deleted", who=principal.name, backup=backup.id, name=backup.name, database=database.id)
    return Response(status_code=204)


async def get_archive(request: Request, database_id: str, backup_id: str) -> Response:
    """Give a link that downloads the archive of a backup: no token is needed for it, and it soon expires."""
    principal, database = permitted(request, database_id, DOWNLOAD_BACKUP)
    service = service_of(request)
    backup = await _backup_of(request, database, backup_id)
    await service.backups.require_download(backup)
    expires, signature = await service.links.sign(principal, DOWNLOAD_BACKUP, backup.id)
    service.log.info("backup_linked", who=principal.name, backup=backup.id, database=database.id)
    base = service.public_url or str(request.base_url).rstrip("/")
    url = f"{base}/api/backups/{backup.id}/download?expires={expires}&signature={signature}"
    return as_json({"download_url": url})


async def restore_backup(request: Request, database_id: str, backup_id: str) -> Response:
    """Begin to bring a backup back: what the database holds now is replaced."""
    principal, database = permitted(request, database_id, RESTORE_BACKUP)
    await no_fields(request)
    # Before its backup is looked for, which may be gone by then.
    before = await service_of(request).operations.begun_before(database.id)
    if before is not None:
        return as_json(_shown_restoration(before), 201)
    backup = await _backup_of(request, database, backup_id)
    with database.admitted(RESTORE_BACKUP.effect):
        operation = await service_of(request).backups.restore(
            database, backup, principal.name, safely=is_wished(principal, database)
        )
    return as_json(_shown_restoration(operation), 201)


async def get_restoration(request: Request, database_id: str, restoration_id: str) -> Response:
    """Show how far the restoration of a backup is, or how it ended."""
    _, database = database_of(request, database_id)
    operation = await service_of(request).backups.restoration(database.id, restoration_id)
    return as_json({"backup_restoration": _shown_restoration(operation)})


async def download(request: Request, backup_id: str) -> Response:
    """Download an archive with a link that `archive` gave: all of it, or the range that is asked for."""
    service = service_of(request)
    given = request.query_params
    link = await service.links.read(DOWNLOAD_BACKUP, backup_id, given.get("expires", ""), given.get("signature", ""))
    backup = await service.backups.find(backup_id)
    principal, _ = service.links.good_for(link, backup.database_id)
    service.limits.count(principal.name, Effect.READ)
    await service.backups.require_download(backup)
    size = backup.size or 0
    etag = f'"{backup.sha256}"'
    wanted = _range(request.headers.get("range", ""), size)
    if wanted is not None and request.headers.get("if-range", etag) != etag:
        wanted = None
    first, length = wanted or (0, size)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{backup.name}.tar.gz"',
        "Content-Length": str(length),
        "ETag": etag,
        "Cache-Control": "private, no-store",
    }
    if wanted is not None:
        headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{size}"
    content = service.backups.read(backup, first, 0 if request.scope.get("dbvalet.head") else length)
    return StreamingResponse(content, 200 if wanted is None else 206, headers, "application/gzip")


async def download_of(request: Request) -> Response:
    """Download with a link, as Starlette calls it."""
    return await download(request, request.path_params["backup_id"])


def shown(backup: Backup) -> dict[str, Any]:
    """Give the fields of `BackupResource`."""
    fields = {name: getattr(backup, name) for name in BackupResource.model_fields if name not in ("type", "contents")}
    # The documented API knows two.
    fields["method"] = "periodic" if backup.method == "periodic" else "manual"
    manifest = backup.manifest
    contents = {name: manifest[name] for name in BackupContents.model_fields} if manifest else None
    return {**fields, "type": fields["method"], "contents": contents}


def _shown_restoration(operation: Operation) -> dict[str, Any]:
    from agent.backups.record import OF_OPERATION

    return {
        "id": operation.id,
        "database_id": operation.database_id,
        "source_backup_id": operation.params["backup_id"],
        "safety_backup_id": operation.params.get("safety_backup_id"),
        "status": OF_OPERATION[operation.status],
        "progress": operation.progress,
        "step": operation.step,
        "error": operation.error,
        "notes": operation.notes,
        "operation_id": operation.id,
        "created_at": operation.created_at,
        "finished_at": operation.finished_at,
    }


async def _backup_of(request: Request, database: Database, backup_id: str) -> Backup:
    backup = await service_of(request).backups.find(backup_id)
    if backup.database_id != database.id:
        raise BackupNotFound
    return backup


def _range(header: str, size: int) -> tuple[int, int] | None:
    """Read a range of bytes as where it begins and how long it is; None for all, and for what RFC 9110 lets be ignored.

    Raises: RangeInvalid
    """
    matched = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.strip())
    if matched is None or matched[0] == "bytes=-" or (matched[1] and matched[2] and int(matched[2]) < int(matched[1])):
        return None
    if not matched[1]:
        length = min(int(matched[2]), size)
        first = size - length
    else:
        first = int(matched[1])
        length = min(int(matched[2] or size), size - 1) - first + 1
    if first >= size or length <= 0:
        raise RangeInvalid(size=size)
    return first, length

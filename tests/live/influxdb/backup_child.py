"""Dump or restore in a process: `python -m tests.live.influxdb.backup_child dump|restore URL FOLDER [BYTES|WORDS]`."""

import asyncio

from engines.influxdb.backup import InfluxBackups
from tests.live.backup_child import arguments, work_on
from tests.live.influxdb.conftest import connect


async def main() -> None:
    work, url, folder, given = arguments()
    server = connect(url)
    backups = InfluxBackups(server)
    # What is imported first is no use of memory by the backup.
    await backups.missing()
    await backups.clean_up()
    await work_on(backups, work, folder, given)
    await server.close()


if __name__ == "__main__":
    asyncio.run(main())

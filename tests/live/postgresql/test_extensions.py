"""list-extensions lists what was created in the deployment's database."""

import pytest

from engines import deadline
from engines.errors import DeadlineExceeded
from tests.live.postgresql.deployment import Deployment, new_deployment


async def test_the_created_extensions_are_listed_with_a_leading_v(deployment: Deployment) -> None:
    created = await deployment.rows("SELECT extname::text, 'v' || extversion FROM pg_extension")
    result = await deployment.act("list-extensions")
    assert sorted((row["name"], row["version"]) for row in result) == sorted(created)
    assert [row["name"] for row in result] == ["pg_stat_statements", "plpgsql"]
    assert {tuple(row) for row in result} == {("name", "version")}


async def test_the_version_is_the_one_that_was_created_not_the_newest_there_is(deployment: Deployment) -> None:
    await deployment.admin.execute("DROP EXTENSION pg_stat_statements")
    await deployment.admin.execute("CREATE EXTENSION pg_stat_statements VERSION '1.4'")
    assert {"name": "pg_stat_statements", "version": "v1.4"} in await deployment.act("list-extensions")


async def test_extensions_of_other_databases_are_left_out(deployment: Deployment) -> None:
    async with new_deployment(deployment.live) as other:
        await other.admin.execute("DROP EXTENSION pg_stat_statements")
        assert [row["name"] for row in await other.act("list-extensions")] == ["plpgsql"]
        assert len(await deployment.act("list-extensions")) == 2


async def test_a_list_that_must_wait_ends_at_its_deadline(deployment: Deployment) -> None:
    async with deployment.admin.transaction():
        await deployment.admin.execute("LOCK TABLE pg_catalog.pg_extension IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DeadlineExceeded), deadline.within(0.3):
            await deployment.act("list-extensions")
    assert await deployment.act("list-extensions")

from typing import Any

import requests
from influxdb.resultset import ResultSet

class InfluxDBClient:
    def __init__(
        self,
        host: str = ...,
        port: int = ...,
        username: str | None = ...,
        password: str | None = ...,
        database: str | None = ...,
        ssl: bool = ...,
        verify_ssl: bool | str = ...,
        timeout: float | tuple[float, float] | None = ...,
        retries: int = ...,
        use_udp: bool = ...,
        udp_port: int = ...,
        proxies: dict[str, str] | None = ...,
        pool_size: int = ...,
        path: str = ...,
        cert: str | tuple[str, str] | None = ...,
        gzip: bool = ...,
        session: requests.Session | None = ...,
        headers: dict[str, str] | None = ...,
        socket_options: list[tuple[int, int, int]] | None = ...,
    ) -> None: ...
    def request(
        self,
        url: str,
        method: str = ...,
        params: dict[str, str] | None = ...,
        data: bytes | str | None = ...,
        stream: bool = ...,
        expected_response_code: int = ...,
        headers: dict[str, str] | None = ...,
    ) -> requests.Response: ...
    def query(
        self,
        query: str,
        params: dict[str, str] | None = ...,
        bind_params: dict[str, Any] | None = ...,
        epoch: str | None = ...,
        expected_response_code: int = ...,
        database: str | None = ...,
        raise_errors: bool = ...,
        chunked: bool = ...,
        chunk_size: int = ...,
        method: str = ...,
    ) -> ResultSet: ...
    def ping(self) -> str: ...
    def get_list_database(self) -> list[dict[str, str]]: ...
    def get_list_retention_policies(self, database: str | None = ...) -> list[dict[str, Any]]: ...
    def create_database(self, dbname: str) -> None: ...
    def drop_database(self, dbname: str) -> None: ...
    def write_points(
        self,
        points: list[dict[str, Any]],
        time_precision: str | None = ...,
        database: str | None = ...,
        retention_policy: str | None = ...,
    ) -> bool: ...
    def close(self) -> None: ...

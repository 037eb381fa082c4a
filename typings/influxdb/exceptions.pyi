class InfluxDBClientError(Exception):
    content: str
    code: int | None
    def __init__(self, content: str | bytes, code: int | None = ...) -> None: ...

class InfluxDBServerError(Exception):
    def __init__(self, content: str | bytes) -> None: ...

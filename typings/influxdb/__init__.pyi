"""What dbvalet uses of influxdb 5.3.2, which has no types of its own."""

from influxdb.client import InfluxDBClient as InfluxDBClient

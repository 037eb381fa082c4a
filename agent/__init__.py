"""The service: HTTP, who may do what, what is remembered. It reaches a server only through `Engine` and `Action`."""

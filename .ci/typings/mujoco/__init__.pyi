"""MuJoCo's bindings are compiled and ship no stubs: pyright takes every name in them as it comes."""

from typing import Any

def __getattr__(name: str) -> Any: ...

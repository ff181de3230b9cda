"""The filter in a host of our own that records every host call: for what a real Envoy does not show, the number of
calls that a request makes and the memory that it leaves behind.

It knows the calls that signing a request makes, and answers others with status 1, as a proxy does that finds nothing.
"""

import json
import struct
import time
from collections import Counter
from pathlib import Path

from wasmtime import Engine, FuncType, Instance, Module, Store, ValType
from wasmtime import Func as HostFunction

OK, NOT_FOUND = 0, 1
ROOT, PLUGIN_CONFIGURATION, REQUEST_BODY = 1, 7, 0


class WasmHost:
    """One virtual machine with one plugin in it."""

    def __init__(self, wasm: Path, configuration: dict, shared_data: dict[str, bytes]):
        self.calls: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.body = b""
        self.requests_counted = 0
        self.seconds_passed = 0
        self._started = int(time.time())
        self._configuration = json.dumps(configuration).encode()
        self._shared = dict(shared_data)
        self._streams = 100
        self._store = Store(Engine())
        module = Module.from_file(self._store.engine, str(wasm))
        imports = [self._host_function(item) for item in module.imports]
        self._exports = Instance(self._store, module, imports).exports(self._store)
        self._memory = self._exports["memory"]
        self._call("_initialize")
        self._call("proxy_on_context_create", ROOT, 0)
        self._call("proxy_on_vm_start", ROOT, 0)
        assert self._call("proxy_on_configure", ROOT, len(self._configuration)) == 1, "the configuration is refused"
        self.tick()

    def tick(self) -> None:
        self._call("proxy_on_tick", ROOT)

    def remove(self) -> None:
        """Removes the plugin, as a proxy does that has another configuration for it."""
        self._call("proxy_on_delete", ROOT)

    @property
    def memory_bytes(self) -> int:
        return self._memory.data_len(self._store)

    def request(self, headers: list[tuple[str, str]], *parts: bytes) -> dict[str, str]:
        """Puts a request through the filter, its body in parts; gives the headers that the filter has set."""
        self._streams += 1
        stream = self._streams
        self.headers, self.body = dict(headers), b""
        before = dict(self.headers)
        self._call("proxy_on_context_create", stream, ROOT)
        self._call("proxy_on_request_headers", stream, len(headers), int(not parts))
        for number, part in enumerate(parts):
            self.body += part
            self._call("proxy_on_request_body", stream, len(self.body), int(number == len(parts) - 1))
        self._call("proxy_on_response_headers", stream, 1, 1)
        self._call("proxy_on_delete", stream)
        return {name: value for name, value in self.headers.items() if before.get(name) != value}

    def _call(self, export: str, *arguments: int) -> int | None:
        return self._exports[export](self._store, *arguments)

    def _host_function(self, item) -> HostFunction:
        known = getattr(self, f"_{item.name.removeprefix('proxy_')}", None)

        def call(*arguments: int) -> int:
            self.calls[item.name.removeprefix("proxy_")] += 1
            return known(*arguments) if known else NOT_FOUND

        signature = FuncType([ValType.i32() if str(p) == "i32" else p for p in item.type.params], item.type.results)
        return HostFunction(self._store, signature, call)

    def _read(self, at: int, length: int) -> bytes:
        return bytes(self._memory.read(self._store, at, at + length))

    def _write(self, at: int, data: bytes) -> None:
        self._memory.write(self._store, data, at)

    def _give(self, data: bytes, pointer: int, size: int) -> int:
        if data:
            at = self._call("malloc", len(data))
            self._write(at, data)
            self._write(pointer, struct.pack("<I", at))
        self._write(size, struct.pack("<I", len(data)))
        return OK

    # The host calls, by the names that the ABI gives them.

    def _get_current_time_nanoseconds(self, at: int) -> int:
        self._write(at, struct.pack("<Q", (self._started + self.seconds_passed) * 10**9))
        return OK

    def _get_header_map_pairs(self, _map: int, pointer: int, size: int) -> int:
        pairs = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        lengths = b"".join(struct.pack("<II", len(name), len(value)) for name, value in pairs)
        texts = b"".join(name + b"\0" + value + b"\0" for name, value in pairs)
        return self._give(struct.pack("<I", len(pairs)) + lengths + texts, pointer, size)

    def _get_header_map_value(self, _map: int, name: int, length: int, pointer: int, size: int) -> int:
        return self._give(b"200", pointer, size) if self._read(name, length) == b":status" else NOT_FOUND

    def _add_header_map_value(self, _map: int, name: int, name_length: int, value: int, value_length: int) -> int:
        self.headers[self._read(name, name_length).decode()] = self._read(value, value_length).decode()
        return OK

    _replace_header_map_value = _add_header_map_value

    def _remove_header_map_value(self, _map: int, name: int, length: int) -> int:
        self.headers.pop(self._read(name, length).decode(), None)
        return OK

    def _get_buffer_bytes(self, buffer: int, start: int, length: int, pointer: int, size: int) -> int:
        data = {PLUGIN_CONFIGURATION: self._configuration, REQUEST_BODY: self.body}.get(buffer)
        if data is None:
            return NOT_FOUND
        return self._give(data[start : start + (length & 0xFFFFFFFF)], pointer, size)

    def _get_shared_data(self, key: int, length: int, pointer: int, size: int, cas: int) -> int:
        data = self._shared.get(self._read(key, length).decode())
        if data is None:
            return NOT_FOUND
        self._write(cas, struct.pack("<I", 1))
        return self._give(data, pointer, size)

    def _set_shared_data(self, key: int, length: int, value: int, size: int, _cas: int) -> int:
        self._shared[self._read(key, length).decode()] = self._read(value, size)
        return OK

    def _define_metric(self, _kind: int, _name: int, _length: int, id_at: int) -> int:
        self._write(id_at, struct.pack("<I", 1))
        return OK

    def _increment_metric(self, _id: int, offset: int) -> int:
        self.requests_counted += offset
        return OK

    def _record_metric(self, _id: int, _value: int) -> int:
        return OK

    def _set_property(self, *_: int) -> int:
        return OK

    def _set_tick_period_milliseconds(self, _period: int) -> int:
        return OK

    def _register_shared_queue(self, *_: int) -> int:
        return OK

"""The filter in a host of our own that records every host call. It shows what a real Envoy does not, the host calls of
a request and the memory that it leaks, and takes thousands of inputs.

It implements the calls that signing a request and answering an intake call need, and answers others with status 1, as a
proxy that finds nothing.
"""

import functools
import json
import struct
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wasmtime import Config, Engine, FuncType, Instance, Module, Store, ValType
from wasmtime import Func as HostFunction

OK, NOT_FOUND, CAS_MISMATCH = 0, 1, 8
ROOT, PLUGIN_CONFIGURATION, REQUEST_BODY = 1, 7, 0
CONTINUE = 0

Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class Reply:
    """A local reply."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass
class Exchange:
    """A request on its way through the filter, and its outcome."""

    headers: list[tuple[bytes, bytes]]
    buffer: bytes = b""
    """Of the body, what came and has not gone on."""
    sent: bytes = b""
    """Of the body, what has gone on."""
    goes_on: bool = False
    reply: Reply | None = None

    def header(self, name: bytes) -> bytes | None:
        return next((value for other, value in self.headers if other == name), None)


# More than a test uses, and half of the counter's range.
_FUEL = 1 << 62


@functools.cache
def _compiled(wasm: Path, _modified: int, counts_instructions: bool) -> tuple[Engine, Module]:
    # About a second.
    configuration = Config()
    configuration.consume_fuel = counts_instructions
    engine = Engine(configuration)
    return engine, Module.from_file(engine, str(wasm))


class WasmHost:
    """One virtual machine with a plugin in it, and others that a test adds."""

    def __init__(
        self, wasm: Path, configuration: dict, shared_data: dict[str, bytes], counts_instructions: bool = False
    ):
        self.calls: Counter[str] = Counter()
        self.log: list[str] = []
        self.requests_counted = 0
        self.seconds_passed = 0
        self.properties: dict[bytes, bytes] = {}
        self._exchange = Exchange([])
        self._started = int(time.time())
        self._configuration = b""
        self._shared = {key: (value, 1) for key, value in shared_data.items()}
        self._contexts = ROOT
        engine, module = _compiled(wasm, wasm.stat().st_mtime_ns, counts_instructions)
        self._store = Store(engine)
        if counts_instructions:
            self._store.set_fuel(_FUEL)
        imports = [self._host_function(item) for item in module.imports]
        self._exports = Instance(self._store, module, imports).exports(self._store)
        self._memory = self._exports["memory"]
        self._call("_initialize")
        self._call("proxy_on_context_create", ROOT, 0)
        self._call("proxy_on_vm_start", ROOT, 0)
        assert self._configure(ROOT, json.dumps(configuration).encode()), "the configuration is rejected"
        self.tick()

    def tick(self, plugin: int = ROOT) -> None:
        self._call("proxy_on_tick", plugin)

    def add(self, configuration: bytes) -> int | None:
        """Adds a plugin; returns `None` if it rejects its configuration."""
        plugin = self._create_context(0)
        if self._configure(plugin, configuration):
            return plugin
        self.remove(plugin)
        return None

    def remove(self, plugin: int = ROOT) -> None:
        """Removes a plugin, as a proxy does for a new configuration."""
        self._call("proxy_on_delete", plugin)

    @property
    def memory_bytes(self) -> int:
        return self._memory.data_len(self._store)

    @property
    def instructions(self) -> int:
        """Returns the number of WebAssembly instructions run so far; for a host that counts them."""
        return _FUEL - self._store.get_fuel()

    @property
    def shared_data(self) -> dict[str, bytes]:
        return {key: value for key, (value, _) in self._shared.items()}

    def put(self, key: str, value: bytes) -> None:
        """Writes shared data, as another plugin of the `vm_id` would."""
        _, cas = self._shared.get(key, (b"", 0))
        self._shared[key] = (value, cas + 1)

    def request(self, headers: list[tuple[str, str]], *parts: bytes) -> dict[str, str]:
        """Sends a request through the filter, its body in parts; returns the headers that the filter has set."""
        before = dict(headers)
        exchange = self.send([(name.encode(), value.encode()) for name, value in headers], *parts)
        after = {name.decode(): value.decode() for name, value in exchange.headers}
        return {name: value for name, value in after.items() if before.get(name) != value}

    def send(self, headers: Headers, *parts: bytes, plugin: int = ROOT) -> Exchange:
        """Sends a request through the filter, its body in parts, and a response if it is not answered already."""
        exchange = self._exchange = Exchange(list(headers))
        stream = self._create_context(plugin)
        action = self._call("proxy_on_request_headers", stream, len(headers), int(not parts))
        exchange.goes_on |= action == CONTINUE and exchange.reply is None
        for number, part in enumerate(parts):
            if exchange.reply:
                break
            exchange.buffer += part
            last = number == len(parts) - 1
            action = self._call("proxy_on_request_body", stream, len(exchange.buffer), int(last))
            if action == CONTINUE and exchange.reply is None:
                exchange.goes_on = True
                exchange.sent, exchange.buffer = exchange.sent + exchange.buffer, b""
        if exchange.reply is None:
            self._call("proxy_on_response_headers", stream, 1, 1)
        self._call("proxy_on_delete", stream)
        return exchange

    def _create_context(self, parent: int) -> int:
        self._contexts += 1
        self._call("proxy_on_context_create", self._contexts, parent)
        return self._contexts

    def _configure(self, plugin: int, configuration: bytes) -> bool:
        self._configuration = configuration
        return self._call("proxy_on_configure", plugin, len(configuration)) == 1

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

    # The host calls, by their names in the ABI.

    def _get_current_time_nanoseconds(self, at: int) -> int:
        self._write(at, struct.pack("<Q", (self._started + self.seconds_passed) * 10**9))
        return OK

    def _get_header_map_pairs(self, _map: int, pointer: int, size: int) -> int:
        pairs = self._exchange.headers
        lengths = b"".join(struct.pack("<II", len(name), len(value)) for name, value in pairs)
        texts = b"".join(name + b"\0" + value + b"\0" for name, value in pairs)
        return self._give(struct.pack("<I", len(pairs)) + lengths + texts, pointer, size)

    def _get_header_map_value(self, _map: int, name: int, length: int, pointer: int, size: int) -> int:
        return self._give(b"200", pointer, size) if self._read(name, length) == b":status" else NOT_FOUND

    def _add_header_map_value(self, _map: int, name: int, name_length: int, value: int, value_length: int) -> int:
        self._exchange.headers.append((self._read(name, name_length), self._read(value, value_length)))
        return OK

    def _replace_header_map_value(self, _map: int, name: int, name_length: int, value: int, value_length: int) -> int:
        self._remove_header_map_value(_map, name, name_length)
        return self._add_header_map_value(_map, name, name_length, value, value_length)

    def _remove_header_map_value(self, _map: int, name: int, length: int) -> int:
        removed = self._read(name, length)
        self._exchange.headers = [pair for pair in self._exchange.headers if pair[0] != removed]
        return OK

    def _get_buffer_bytes(self, buffer: int, start: int, length: int, pointer: int, size: int) -> int:
        data = {PLUGIN_CONFIGURATION: self._configuration, REQUEST_BODY: self._exchange.buffer}.get(buffer)
        if data is None:
            return NOT_FOUND
        return self._give(data[start : start + (length & 0xFFFFFFFF)], pointer, size)

    def _set_buffer_bytes(self, buffer: int, start: int, length: int, data: int, size: int) -> int:
        if buffer != REQUEST_BODY:
            return NOT_FOUND
        old, new = self._exchange.buffer, self._read(data, size)
        start = min(start & 0xFFFFFFFF, len(old))
        self._exchange.buffer = old[:start] + new + old[start + (length & 0xFFFFFFFF) :]
        return OK

    def _send_local_response(self, status: int, *arguments: int) -> int:
        _details, _details_size, body, size, headers, headers_size, _grpc_status = arguments
        self._exchange.reply = Reply(status, _pairs(self._read(headers, headers_size)), self._read(body, size))
        return OK

    def _continue_stream(self, _stream: int) -> int:
        self._exchange.goes_on = True
        return OK

    def _get_property(self, path: int, length: int, pointer: int, size: int) -> int:
        value = self.properties.get(self._read(path, length))
        return NOT_FOUND if value is None else self._give(value, pointer, size)

    def _get_shared_data(self, key: int, length: int, pointer: int, size: int, cas_at: int) -> int:
        data, cas = self._shared.get(self._read(key, length).decode(), (None, 0))
        if data is None:
            return NOT_FOUND
        self._write(cas_at, struct.pack("<I", cas))
        return self._give(data, pointer, size)

    def _set_shared_data(self, key: int, length: int, value: int, size: int, cas: int) -> int:
        name = self._read(key, length).decode()
        _, current = self._shared.get(name, (b"", 0))
        if cas not in (0, current):
            return CAS_MISMATCH
        self._shared[name] = (self._read(value, size), current + 1)
        return OK

    def _log(self, _level: int, message: int, size: int) -> int:
        self.log.append(self._read(message, size).decode(errors="replace"))
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


def _pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    """Reads a header map in the ABI's form."""
    (count,) = struct.unpack_from("<I", data)
    lengths = struct.iter_unpack("<II", data[4 : 4 + 8 * count])
    at, pairs = 4 + 8 * count, []
    for name, value in lengths:
        pairs.append((data[at : at + name], data[at + name + 1 : at + name + 1 + value]))
        at += name + value + 2
    return pairs
